"""Plots of the models behind the decisions: what a round costs, and what replay and the clairvoyant bound predict."""

from __future__ import annotations

from typing import Any

from speckv.benchmarks.report.economics import Fit, cost_fit, round_ms
from speckv.benchmarks.report.reading import Bound, Result
from speckv.benchmarks.report.style import (
    BAR,
    BLUE,
    EDGE,
    INK,
    ORANGE,
    Absent,
    Drawn,
    drawable,
    drawn,
    grid,
    legend,
    whole_numbers,
)
from speckv.benchmarks.report.words import listed, number, percent, slug

MOST_GAMMA = 20
"""Beyond it no costs are drawn."""


def costs(result: Result) -> list[Drawn]:
    """Predicted and measured time of a round by γ, a plot per regime."""
    title = "What a round costs"
    if not result.costs:
        return [Absent(title, "no calibrated costs are stored; they come with measurements in transformers.")]
    made: list[Drawn] = []
    for index, (regime, of) in enumerate(result.costs.items()):
        fit = cost_fit(result, regime)
        if fit is None:
            made.append(Absent(f"{title}: {regime}", "no timed rounds with a draft are stored for it."))
            continue
        points = [point for point in fit.points if point[0] <= MOST_GAMMA] or fit.points[:1]

        def draw(figure: Any, points: list[Any] = points) -> None:
            axes = figure.add_subplot()
            gammas, predicted, spreads, _ = zip(*points, strict=True)
            axes.plot(gammas, predicted, color=BLUE, linewidth=2, label="predicted by calibrated costs")
            middle = [spread[1] for spread in spreads]
            errors = [[spread[1] - spread[0] for spread in spreads], [spread[2] - spread[1] for spread in spreads]]
            axes.errorbar(
                gammas,
                middle,
                yerr=errors,
                fmt="o",
                color=ORANGE,
                **EDGE,
                ecolor=INK,
                elinewidth=1,
                capsize=3,
                label="measured: median, quartiles",
            )
            axes.set_xlabel("draft tokens in the round (γ)")
            axes.set_ylabel("ms per round")
            whole_numbers(axes.xaxis)
            axes.set_ylim(bottom=0)
            grid(axes, "both")
            legend(figure, 1)

        caption = (
            f"A round of γ draft tokens should take γ × {number(of.draft_ms)} ms for the draft and a verify of γ + 1 "
            f"rows, and one for each token verified beside those; a verify of one row takes {number(round_ms(of, 0))} "
            f"ms. The line is made of such times measured beforehand, the median of the rounds of each γ, the dots are "
            f"{fit.rounds} rounds of the benchmark itself, prefills left out. Where "
            "the dots leave the line, speckv follows the dots: it times its own rounds."
        )
        alt = f"Time of a round by γ, {regime}: median distance of measured from predicted {percent(fit.error)}. "
        alt += _told(fit)
        made.append(drawn(f"costs-{index}-{slug(regime)}", f"{title}: {regime}", caption, alt, 3.6, draw))
    return made


def bounds(result: Result) -> list[Drawn]:
    """Measured and predicted rates against plain, under the clairvoyant bound, a plot per regime."""
    title = "What was possible"
    if not result.bound:
        return [Absent(title, "no traces of these prompts on this pair were recorded, so there is no bound.")]
    made: list[Drawn] = []
    for index, bound in enumerate(result.bound):
        policies = [policy for policy in bound.measured_vs_plain if policy in bound.predicted_vs_plain][::-1]
        if not policies:
            made.append(Absent(f"{title}: {bound.framework}, {bound.regime}", "it has no policy that was measured."))
            continue

        def draw(figure: Any, bound: Bound = bound, policies: list[str] = policies) -> None:
            axes = figure.add_subplot()
            at = range(len(policies))
            measured = [bound.measured_vs_plain[policy] for policy in policies]
            predicted = [bound.predicted_vs_plain[policy] for policy in policies]
            axes.hlines(at, measured, predicted, color=INK, linewidth=1)
            axes.plot(
                predicted,
                at,
                "o",
                markerfacecolor="none",
                markeredgecolor=BLUE,
                markeredgewidth=1.8,
                markersize=9,
                label="predicted by replay",
            )
            axes.plot(measured, at, "D", color=ORANGE, markeredgecolor=INK, markersize=6, label="measured")
            axes.axvline(bound.clairvoyant_vs_plain, color=INK, linewidth=2, label="clairvoyant bound")
            axes.axvline(1, color=INK, linewidth=1, linestyle="--", label="plain")
            axes.set_yticks(at, [drawable(policy, 14) for policy in policies])
            axes.set_ylim(-0.6, len(policies) - 0.4)
            axes.set_xlabel("tokens per second against plain")
            grid(axes, "x")
            legend(figure, 2)

        caption = (
            "The thick line is the clairvoyant bound: what a policy would reach that knew beforehand how many draft "
            "tokens will be accepted. No real policy can, so the gap to it is not all winnable. Circles are what "
            "replay on recorded traces and calibrated costs predicts, without prefill and the loop's own time."
        )
        told = listed([f"{policy} {bound.measured_vs_plain[policy]:.2f}" for policy in policies[::-1]])
        alt = f"Rates against plain, {bound.framework}, {bound.regime}: bound {bound.clairvoyant_vs_plain:.2f}; {told}."
        name = f"bound-{index}-{slug(bound.framework)}-{slug(bound.regime)}"
        heading = f"{title}: {bound.framework}, {bound.regime}"
        made.append(drawn(name, heading, caption, alt, BAR * len(policies) + 1.5, draw))
    return made


def _told(fit: Fit) -> str:
    told = [f"γ = {gamma}, {number(said)} and {number(spread[1])} ms" for gamma, said, spread, _ in fit.points[:6]]
    return f"Predicted and measured: {'; '.join(told)}."

"""Plots of what happened inside rounds: γ over one request, acceptance by position, and whether predictions hold."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from speckv.benchmarks.bench.plan import OURS
from speckv.benchmarks.report.economics import Calibration, calibration
from speckv.benchmarks.report.reading import Entry, Place, Result
from speckv.benchmarks.report.style import (
    BLUE,
    EDGE,
    INK,
    ORANGE,
    SERIES,
    Absent,
    Drawn,
    drawable,
    drawn,
    grid,
    legend,
    mark,
    whole_numbers,
)
from speckv.benchmarks.report.words import listed, percent, place_slug, where

LEAST_REACHED = 10
"""Rounds that must have drafted so far for a share of acceptance to be shown."""

MOST_SHOWN = 80


def one_request(result: Result) -> list[Drawn]:
    """γ and accepted tokens over the rounds of our entry with the most different γ."""
    title = "One request, round by round"
    ours = [entry for entry in result.entries if entry.policy == OURS and entry.gammas]
    if not ours:
        return [Absent(title, f"no rounds of {OURS} are stored in this result.")]
    chosen = max(ours, key=lambda entry: (bool(entry.steps), len(set(_gammas(entry))), len(_gammas(entry))))
    gammas, steps = _gammas(chosen), chosen.steps
    if not any(gammas):
        return [Absent(title, f"{OURS} drafted nothing in any request, so γ is 0 throughout.")]
    shown = min(len(gammas), MOST_SHOWN)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        at = range(1, shown + 1)
        axes.bar(at, gammas[:shown], 0.9, color="none", edgecolor=INK, linewidth=1, label="drafted (γ)")
        if steps:
            axes.bar(
                at,
                [step.accepted for step in steps[:shown]],
                0.9,
                color=BLUE,
                hatch="///",
                edgecolor=INK,
                linewidth=0.4,
                label="accepted of these",
            )
        nothing = [x for x, gamma in zip(at, gammas, strict=False) if not gamma]
        axes.plot(
            nothing,
            [0] * len(nothing),
            "x",
            color=ORANGE,
            markersize=6,
            markeredgewidth=1.8,
            label="γ = 0: plain round",
            clip_on=False,
        )
        hits = [(x, step.accepted + 0.5) for x, step in zip(at, steps, strict=False) if step.sibling_hit]
        if hits:
            axes.plot(*zip(*hits, strict=True), "D", color=ORANGE, **EDGE, label="one beside was right")
        axes.set_xlabel("round")
        axes.set_ylabel("draft tokens")
        whole_numbers(axes.xaxis)
        whole_numbers(axes.yaxis)
        grid(axes, "y")
        legend(figure, 2)

    caption = (
        "A round drafts γ tokens (outline), the target accepts the first so many of them (filled) and adds one of its "
        "own. An outline that is filled to the top wasted nothing; an empty part was drafted in vain, unless a token "
        "verified beside it was right. The request "
        f"shown is the one with the most different γ: {chosen.prompt_id}, {where(chosen.place)}."
    )
    caption += " Rounds that hold a prefill are not shown." if steps else " How many were accepted is not stored there."
    caption += f" The first {shown} of {len(gammas)} rounds." if shown < len(gammas) else ""
    alt = f"Bars of draft tokens per round in one request of {OURS}: γ from {min(gammas)} to {max(gammas)} "
    alt += f"over {len(gammas)} rounds."
    return [drawn("request", title, caption, alt, 3.2, draw)]


def by_position(result: Result) -> list[Drawn]:
    """The share of rounds whose i-th draft token was accepted, given that it was drafted, a plot per place."""
    made: list[Drawn] = []
    title = "Acceptance by position in the draft"
    for index, place in enumerate(result.places):
        lines = {policy: line for policy in result.at(place) if (line := _survival(result.entries_at(place, policy)))}
        if not lines:
            continue

        def draw(figure: Any, lines: dict[str, list[float]] = lines) -> None:
            axes = figure.add_subplot()
            for policy, line in lines.items():
                axes.plot(range(1, len(line) + 1), line, linewidth=1.8, **mark(policy))
            axes.set_ylim(0, 1.05)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
            whole_numbers(axes.xaxis)
            axes.set_xlabel("position in the draft")
            axes.set_ylabel("accepted, of those drafted")
            grid(axes, "y")
            legend(figure, 3)

        caption = (
            "A draft token counts only if all before it were accepted too, so acceptance falls with the position. A "
            "policy that drafts on only where the draft model is sure lies above one with a fixed γ. Positions that "
            f"fewer than {LEAST_REACHED} rounds reached are left out."
        )
        first = listed([f"{policy} {percent(line[0])}" for policy, line in lines.items()])
        alt = f"Lines of the accepted share by position, {where(place)}. At the first: {first}."
        name = f"position-{index}-{place_slug(place)}"
        made.append(drawn(name, f"{title}: {where(place)}", caption, alt, 3.6, draw))
    return made or [Absent(title, "no rounds with drafts are stored in this result (SGLang does not tell them).")]


def reliability(result: Result) -> list[Drawn]:
    """Predicted probabilities against what happened, with counts below, a plot per place with predictions."""
    title = "Do the predicted probabilities hold?"
    found: dict[Place, Calibration] = {}
    for place in result.places:
        if (one := calibration(result.entries_at(place, OURS))) is not None:
            found[place] = one
    if not found:
        return [Absent(title, f"{OURS} stored no predictions: it drafted nothing, or was not run in transformers.")]

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--")
        wide = 0.8 / len(found)
        for order, (place, one) in enumerate(found.items()):
            colour, marker, line = SERIES[order % len(SERIES)]
            said, share, count = zip(*one.bins, strict=True)
            spread = [wilson(part, of) for part, of in zip(share, count, strict=True)]
            errors = [[max(0, s - b[0]) for s, b in zip(share, spread, strict=True)]]
            errors.append([max(0, b[1] - s) for s, b in zip(share, spread, strict=True)])
            upper.errorbar(
                said,
                share,
                yerr=errors,
                fmt=marker,
                color=colour,
                linestyle=line,
                **EDGE,
                ecolor=INK,
                elinewidth=0.8,
                capsize=2,
                label=drawable(place.regime, 16),
            )
            at = [min(9, int(p * 10)) / 10 + 0.01 + 0.1 * wide * (order + 0.5) for p in said]
            lower.bar(at, count, 0.1 * wide, color=colour, edgecolor=INK, linewidth=0.5)
        upper.set_ylabel("happened")
        upper.set_ylim(-0.03, 1.03)
        upper.set_xlim(0, 1)
        lower.set_ylabel("count")
        lower.set_xlabel("predicted probability of acceptance")
        for axes in (upper, lower):
            grid(axes, "both")
        if len(found) > 1:
            legend(figure, 3)

    caption = (
        "Predictions in ten bins: where speckv said 70 %, were 70 % accepted? On the dashed line it is right, below "
        "it too hopeful, above it too cautious. Whiskers are 95 % intervals of the share, the bars below count the "
        "predictions. Only tokens that were drafted are known, so low predictions, after which drafting stops, "
        "are few."
    )
    distances = listed([f"{percent(one.error)} in {where(place)}" for place, one in found.items()])
    alt = f"Share accepted against predicted probability; the mean distance from the diagonal is {distances}."
    return [drawn("reliability", title, caption, alt, 4.6, draw)]


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``count``."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def _gammas(entry: Entry) -> list[int]:
    return [step.gamma for step in entry.steps] or entry.gammas


def _survival(entries: Sequence[Entry]) -> list[float]:
    steps = [step for entry in entries for step in entry.steps]
    line: list[float] = []
    for position in range(1, 33):
        reached = [step for step in steps if step.gamma >= position]
        if len(reached) < LEAST_REACHED:
            break
        line.append(sum(step.accepted >= position for step in reached) / len(reached))
    return line

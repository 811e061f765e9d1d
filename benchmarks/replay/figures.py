"""The replay's table and plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speckv.benchmarks.tables import Table

SHOWN = ("plain", "fixed-4", "hf-default", "hf-heuristic", "p-min", "svip", "sglang-ema", "bandit", "paper", "speckv")
BOUND = "clairvoyant"
COLOURS = ("#999999", "#56b4e9", "#0072b2", "#009e73", "#f0e442", "#e69f00", "#cc79a7", "#bbbbbb", "#000000", "#d55e00")
"""Okabe and Ito's, which colour-blind people can tell apart."""


def table(found: Sequence[dict[str, Any]], regimes: Sequence[str]) -> Table:
    """Tokens per second against the best fixed γ (in hindsight), a row per policy."""
    at = {(row["regime"], row["policy"]): row for row in found if row["task"] == "all"}
    made = Table("Tokens per second against the best fixed γ in hindsight", ("policy", *regimes))
    made.rows.append(["best fixed γ", *(at[name, "plain"]["best_fixed"].removeprefix("fixed-") for name in regimes)])
    for policy in (*SHOWN, BOUND):
        made.rows.append([policy, *(f"{at[name, policy]['vs_best_fixed']:.3f}" for name in regimes)])
    ours = [at[name, "speckv"] for name in regimes]
    made.rows.append(["speckv's 95 % interval", *("{:.2f}–{:.2f}".format(*row["ci"]["vs_best_fixed"]) for row in ours)])
    made.rows.append(["speckv vs plain", *(f"{row['vs_plain']:.2f}" for row in ours)])
    made.rows.append(["speckv vs hf-default", *(f"{row['vs_hf_default']:.2f}" for row in ours)])
    shares = (row["oracle_share"] for row in ours)
    made.rows.append(["speckv's share of the bound", *("–" if share is None else f"{share:.2f}" for share in shares)])
    return made


def plot(found: Sequence[dict[str, Any]], regimes: Sequence[str], path: Path) -> None:
    """Bars of tokens per second against the best fixed γ, the clairvoyant bound as a line over each regime."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from speckv.controller.files import write_whole

    at = {(row["regime"], row["policy"]): row for row in found if row["task"] == "all"}
    figure = Figure(figsize=(max(6.0, 1.6 * len(regimes)), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.85 / len(SHOWN)
    for number, policy in enumerate(SHOWN):
        places = [index + (number - (len(SHOWN) - 1) / 2) * width for index in range(len(regimes))]
        heights = [at[name, policy]["vs_best_fixed"] for name in regimes]
        spread = [at[name, policy]["ci"]["vs_best_fixed"] for name in regimes]
        errors = [[max(0.0, h - s[0]) for h, s in zip(heights, spread, strict=True)]]
        errors.append([max(0.0, s[1] - h) for h, s in zip(heights, spread, strict=True)])
        bars: dict[str, Any] = {"color": COLOURS[number], "edgecolor": "black", "linewidth": 0.3, "ecolor": "#444444"}
        axes.bar(places, heights, width, label=policy, yerr=errors, error_kw={"linewidth": 0.7}, **bars)
    for index, name in enumerate(regimes):
        bound = at[name, BOUND]["vs_best_fixed"]
        label = "clairvoyant bound" if index == 0 else None
        axes.plot([index - 0.45, index + 0.45], [bound, bound], color="black", linewidth=1.5, label=label)
    axes.axhline(1.0, color="#444444", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(regimes)), regimes)
    axes.set_ylabel("tokens per second\nagainst the best fixed γ")
    axes.set_ylim(bottom=0.4)
    axes.legend(ncols=6, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lstrip(".") or "png", dpi=130)
    write_whole(path, buffer.getvalue())

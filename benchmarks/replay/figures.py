"""The replay's tables and plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speckv.benchmarks.common.tables import Table

OURS = ("speckv", "speckv-noisy", "speckv-chain", "speckv-step", "speckv-step-noisy", "speckv-step-chain")
PEERS = ("plain", "fixed-4", "hf-default", "hf-heuristic", "p-min", "svip", "sglang-ema", "bandit", "paper")
TREES = ("budget-8", "budget-16", "budget-32", "best static tree")
BOUNDS = ("clairvoyant", "clairvoyant-tree")
DRAWN = ("plain", "fixed-4", "p-min", "sglang-ema", "best static tree", "speckv-step", "speckv")
COLOURS = ("#999999", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#e69f00", "#d55e00")
"""Okabe and Ito's, which colour-blind people can tell apart."""

Rows = Sequence[dict[str, Any]]


def _ratios(found: Rows) -> dict[tuple[str, str], float]:
    """By regime and policy, against the best fixed γ."""
    every = [row for row in found if row["task"] == "all"]
    ratios = {(row["regime"], row["policy"]): float(row["vs_best_fixed"]) for row in every}
    best = {(row["regime"], "best static tree"): ratios[row["regime"], row["best_tree"]] for row in every}
    return ratios | best


def table(found: Rows, batch: int) -> Table:
    """Tokens per second at one batch size against the best fixed γ (in hindsight), a row per policy."""
    regimes = list(dict.fromkeys(row["regime"] for row in found))
    ratios = _ratios(found)
    at = {(row["regime"], row["policy"]): row for row in found if row["task"] == "all"}
    made = Table(f"Batch {batch}: tokens per second against the best fixed γ in hindsight", ("policy", *regimes))
    for name, key in (("best fixed γ", "best_fixed"), ("best static tree (γ, siblings a level)", "best_tree")):
        said = (at[regime, "plain"][key].split("-", 1)[1].replace("-", ", ") for regime in regimes)
        made.rows.append([name, *said])
    for policy in (*PEERS, *TREES, *OURS, *BOUNDS):
        if (regimes[0], policy) in ratios:
            made.rows.append([policy, *(f"{ratios[regime, policy]:.3f}" for regime in regimes)])
    ours = [at[regime, "speckv"] for regime in regimes]
    made.rows.append(["speckv, worst order", *(f"{row['vs_best_fixed_min']:.3f}" for row in ours)])
    made.rows.append(["speckv vs best static tree", *(f"{row['vs_best_tree']:.3f}" for row in ours)])
    made.rows.append(["speckv vs plain", *(f"{row['vs_plain']:.2f}" for row in ours)])
    return made


def plot(found: Rows, path: Path) -> None:
    """Bars of tokens per second against the best fixed γ by regime, one row of them per batch size."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from speckv.controller.files import write_whole

    batches = sorted({row["batch"] for row in found})
    figure = Figure(figsize=(11.0, 2.4 * len(batches) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(batches), 1, squeeze=False)
    for axes, batch in zip(grid[:, 0], batches, strict=True):
        here = [row for row in found if row["batch"] == batch]
        regimes = list(dict.fromkeys(row["regime"] for row in here))
        ratios = _ratios(here)
        width = 0.85 / len(DRAWN)
        for number, policy in enumerate(DRAWN):
            places = [index + (number - (len(DRAWN) - 1) / 2) * width for index in range(len(regimes))]
            heights = [ratios[regime, policy] for regime in regimes]
            bars: dict[str, Any] = {"color": COLOURS[number], "edgecolor": "black", "linewidth": 0.3}
            axes.bar(places, heights, width, label=policy, **bars)
        axes.axhline(1.0, color="#444444", linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(regimes)), regimes)
        axes.set_ylabel(f"batch {batch}")
        axes.set_ylim(bottom=0.4)
    figure.supylabel("tokens per second against the best fixed γ", fontsize="medium")
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), ncols=len(DRAWN), fontsize="small", loc="outside lower center"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lstrip(".") or "png", dpi=130)
    write_whole(path, buffer.getvalue())

"""The plot of the tokens that were verified beside the draft's: how many at each depth, and how many were right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from speckv.benchmarks.bench.plan import OURS
from speckv.benchmarks.report.reading import Entry, Result
from speckv.benchmarks.report.style import BLUE, INK, Absent, Drawn, drawn, grid, legend, whole_numbers
from speckv.benchmarks.report.words import percent, place_slug, where

TITLE = "Siblings by depth"


def by_depth(result: Result) -> list[Drawn]:
    """Siblings of ours, verified and right, as a tree and counted by depth; a plot per place that has any."""
    made: list[Drawn] = []
    for index, place in enumerate(result.places):
        offered, right = totals(result.entries_at(place, OURS))
        if not offered.total():
            continue

        def draw(figure: Any, offered: Counter[int] = offered, right: Counter[int] = right) -> None:
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 4))
            _tree(upper, offered, right)
            _bars(lower, offered, right)
            legend(figure, 2)

        caption = (
            "The tree as it was verified: the upper line is what the draft wrote, and below it at each depth stand "
            "the next most probable tokens, its siblings, each of which is one more position in the target's forward. "
            "In per cent, how many were right: there the target refused the drafted token and wrote the sibling, so "
            "that the round brought one token more. The bars count them."
        )
        share = percent(right.total() / offered.total())
        alt = f"Tree and bars of siblings by depth, {where(place)}: {offered.total()} verified, {share} of them right."
        made.append(drawn(f"siblings-{index}-{place_slug(place)}", f"{TITLE}: {where(place)}", caption, alt, 4.4, draw))
    return made or [Absent(TITLE, f"{OURS} verified no tokens beside those drafted in this result.")]


def _tree(axes: Any, offered: Counter[int], right: Counter[int]) -> None:
    """The draft as a chain of nodes, a sibling beside each where there were any; blue where one was right."""
    deepest = max(offered)
    axes.plot(range(deepest + 1), [0] * (deepest + 1), "o-", color=INK, markerfacecolor="white", markersize=9, zorder=3)
    axes.plot([0], [0], "D", color=INK, markersize=9, zorder=4)
    for depth in sorted(depth for depth, count in offered.items() if count):
        share = right[depth] / offered[depth]
        axes.plot([depth - 1, depth], [0, -1], color=BLUE if right[depth] else INK, linewidth=1 + 5 * share)
        axes.plot([depth], [-1], "s", color=BLUE if right[depth] else "white", markersize=9, markeredgecolor=INK)
        axes.annotate(percent(share), (depth, -1.28), ha="center", va="top")
    axes.annotate("drafted", (deepest, 0.22), ha="right", va="bottom")
    axes.annotate("text so far", (-0.1, 0.22), ha="left", va="bottom")
    axes.set_ylim(-2, 0.8)
    axes.axis("off")


def _bars(axes: Any, offered: Counter[int], right: Counter[int]) -> None:
    depths = range(1, max(offered) + 1)
    axes.bar(depths, [offered[depth] for depth in depths], 0.7, color="none", edgecolor=INK, label="siblings verified")
    style = {"color": BLUE, "hatch": "///", "edgecolor": INK, "linewidth": 0.4, "label": "right"}
    axes.bar(depths, [right[depth] for depth in depths], 0.7, **style)
    axes.set_xlabel("depth in the draft")
    axes.set_ylabel("tokens")
    axes.set_xlim(-0.25, max(offered) + 0.6)
    axes.set_xticks(depths)
    whole_numbers(axes.yaxis)
    grid(axes, "y")


def totals(entries: Sequence[Entry]) -> tuple[Counter[int], Counter[int]]:
    """(verified, right) siblings by depth."""
    offered, right = Counter[int](), Counter[int]()
    for entry in entries:
        offered.update(entry.siblings)
        right.update(entry.sibling_hits)
    return offered, right

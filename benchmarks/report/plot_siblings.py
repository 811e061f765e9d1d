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
    """Siblings of ours, verified and right, by depth; a plot per place that has any."""
    made: list[Drawn] = []
    for index, place in enumerate(result.places):
        offered, right = totals(result.entries_at(place, OURS))
        if not offered:
            continue

        def draw(figure: Any, offered: Counter[int] = offered, right: Counter[int] = right) -> None:
            axes = figure.add_subplot()
            depths = range(1, max(offered) + 1)
            axes.bar(depths, [offered[depth] for depth in depths], 0.9, color="none", edgecolor=INK, label="verified")
            axes.bar(
                depths,
                [right[depth] for depth in depths],
                0.9,
                color=BLUE,
                hatch="///",
                edgecolor=INK,
                linewidth=0.4,
                label="right",
            )
            axes.set_xlabel("depth in the draft")
            axes.set_ylabel("tokens")
            whole_numbers(axes.xaxis)
            grid(axes, "y")
            legend(figure, 2)

        share = percent(right.total() / offered.total())
        caption = (
            "Beside the token drafted at a depth, the next most probable ones are verified too where that pays. One is "
            "right where the drafted token was refused and the target says it instead; the round then goes on from it."
        )
        alt = f"Bars of siblings by depth, {where(place)}: {offered.total()} verified, {share} of them right."
        made.append(drawn(f"siblings-{index}-{place_slug(place)}", f"{TITLE}: {where(place)}", caption, alt, 3.2, draw))
    return made or [Absent(TITLE, f"{OURS} verified no tokens beside those drafted in this result.")]


def totals(entries: Sequence[Entry]) -> tuple[Counter[int], Counter[int]]:
    """(verified, right) siblings by depth."""
    offered, right = Counter[int](), Counter[int]()
    for entry in entries:
        offered.update(entry.siblings)
        right.update(entry.sibling_hits)
    return offered, right

"""Progress bars with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from speckv.benchmarks.common.terminal import make_console, plain

Report = Callable[[str, int, int], None]
LINE_EVERY = 10.0
"""Seconds between lines of one task where there is no terminal to draw a bar on."""


@contextmanager
def progress() -> Iterator[Report]:
    """Yields ``report(what, done, total)``; every distinct ``what`` gets a bar of its own."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(plain(what), total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def _lines() -> Report:
    last: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what not in last or done >= total or now - last[what] >= LINE_EVERY:
            last[what] = now
            print(f"{plain(what)}: {100 * done // max(total, 1)} %", file=sys.stderr, flush=True)

    return report

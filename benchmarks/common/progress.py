"""Progress bars with time left on a terminal, a few plain lines elsewhere; other libraries' bars are held back."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from speckv.benchmarks.common.terminal import make_console, plain

Report = Callable[[str, int, int], None]

LINE_EVERY, LINE_AT_LEAST_EVERY = 10.0, 300.0
"""Seconds between lines of one task where there is no terminal: the first if a tenth more of it is done, the second
if anything is."""

OTHERS = "HF_HUB_DISABLE_PROGRESS_BARS"
"""Read by huggingface_hub when it is imported, and by transformers from there; set to 0, their bars are shown too."""


@contextmanager
def progress() -> Iterator[Report]:
    """Yields ``report(what, done, total)``; every distinct ``what`` gets a bar of its own."""
    hold_back_others()
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    named = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (named, BarColumn(bar_width=20), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(compact=True), console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            known = total if total > 1 or done else None  # of a single step nothing is known until it is done
            if what not in tasks:
                tasks[what] = bars.add_task(plain(what), total=known)
            elif done < total and bars.tasks[tasks[what]].finished:
                bars.reset(tasks[what], total=known)  # the same again, of another model
            bars.update(tasks[what], completed=done, total=known)

        yield report


def hold_back_others() -> None:
    """Switch off the progress bars of huggingface_hub and transformers, which would run through ours."""
    if os.environ.setdefault(OTHERS, "1") != "1":
        return
    for name, switch in (
        ("huggingface_hub.utils", "disable_progress_bars"),
        ("transformers.utils.logging", "disable_progress_bar"),
    ):
        if (module := sys.modules.get(name)) is not None:
            getattr(module, switch)()


def _lines() -> Report:
    """A line when a task begins, when a good part of it is done, and when it ends."""
    begun: dict[str, float] = {}
    said: dict[str, tuple[float, float]] = {}
    ended: set[str] = set()

    def line(text: str) -> None:
        print(plain(text), file=sys.stderr, flush=True)

    def report(what: str, done: int, total: int) -> None:
        now, share = time.monotonic(), done / max(total, 1)
        if done >= total:
            if what not in ended:
                took = now - begun.get(what, now)
                line(f"{what}: done in {duration(took)}" if took >= 1 else f"{what}: done")
            ended.add(what)
            begun.pop(what, None)
            return
        ended.discard(what)
        if what not in begun:
            begun[what], said[what] = now, (now, share)
            line(f"{what}: {share:.0%} done before, going on" if done else f"{what} …")
            return
        since, more = now - said[what][0], share - said[what][1]
        if (since >= LINE_EVERY and more >= 0.1) or (since >= LINE_AT_LEAST_EVERY and more > 0):
            said[what] = now, share
            line(f"{what}: {share:.0%} after {duration(now - begun[what])}")

    return report


def duration(seconds: float) -> str:
    """7 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"

"""A table described once, shown in a terminal or as Markdown in a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.table import Table as RichTable

from speckv.benchmarks.common.terminal import make_console, plain
from speckv.controller.errors import SpecKVError

MARK = re.compile(r"<!-- table: (\w+) -->\n(.*?)<!-- end of table -->", re.DOTALL)
NOTE_WIDTH = 80
"""Columns of what is said beneath a table, however wide the output is."""


@dataclass
class Table:
    """A title, a header and rows of finished text.

    In a terminal the rows named ``bold`` stand out and ``note`` says beneath what the figures mean. What is wider than
    the terminal is shown in parts, each beginning with the first ``keys`` columns.
    """

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""
    bold: str = ""
    keys: int = 1

    def markdown(self) -> str:
        """The table as GitHub's Markdown, ending in a newline; the title is left to the page."""
        lines = [self.header, ["---"] + ["---:"] * (len(self.header) - 1), *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def show(self) -> None:
        """Print it by rich."""
        console = make_console()
        console.print(plain(self.title), style="bold", soft_wrap=True)
        widths = [self._width(at, console.width) for at in range(len(self.header))]
        gap = 2 if sum(widths) + 2 * len(widths) <= console.width else 1
        for columns in self._parts(widths, gap, console.width):
            table = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))
            for at in columns:
                side: JustifyMethod = "right" if at else "left"
                table.add_column(plain(self.header[at]), justify=side, width=widths[at], overflow="fold")
            for row in self.rows:
                stands_out = bool(self.bold) and self.bold in row[: self.keys + 1]
                table.add_row(*(plain(row[at]) for at in columns), style="bold" if stands_out else None)
            console.print(table)
        if self.note:
            console.print(plain(self.note), style="dim", width=min(NOTE_WIDTH, console.width))

    def _width(self, at: int, most: int) -> int:
        """Of a column: its longest cell, or the longest word of its head, which is broken between words."""
        texts = [*self.header[at].split(), *(row[at] for row in self.rows)]
        return max(1, min(most // 2, max((cell_len(plain(text)) for text in texts), default=1)))

    def _parts(self, widths: Sequence[int], gap: int, most: int) -> Iterable[list[int]]:
        """Columns that fit beside each other, all of them in as few parts as that takes."""
        keys = list(range(self.keys))
        part = list(keys)
        for at in range(self.keys, len(widths)):
            if len(part) > len(keys) and sum(widths[one] + gap for one in [*part, at]) - gap > most:
                yield part
                part = list(keys)
            part.append(at)
        yield part


def fill_sections(page: str, sections: Mapping[str, str]) -> str:
    """``page`` with what is between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->`` made anew, for each name."""
    for name, text in sections.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, rest = page.split(begin, 1)
        page = f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"
    return page


def fill_page(page: str, made: Mapping[str, Table]) -> str:
    """``page`` with the text between each pair of table marks replaced by the table of that name.

    A pair is ``<!-- table: NAME -->`` and ``<!-- end of table -->``. Raises SpecKVError on
    a name not ``made``.
    """

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name not in made:
            raise SpecKVError(f"the page asks for table {name}; the command made {', '.join(made)}")
        return f"<!-- table: {name} -->\n{made[name].markdown()}<!-- end of table -->"

    return MARK.sub(replace, page)

"""A table described once, shown in a terminal or as Markdown in a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table as RichTable

from speckv.benchmarks.common.terminal import make_console, plain
from speckv.controller.errors import SpecKVError

MARK = re.compile(r"<!-- table: (\w+) -->\n(.*?)<!-- end of table -->", re.DOTALL)


@dataclass
class Table:
    """A title, a header and rows of finished text."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def markdown(self) -> str:
        """The table as GitHub's Markdown, ending in a newline; the title is left to the page."""
        lines = [self.header, ["---"] + ["---:"] * (len(self.header) - 1), *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def show(self) -> None:
        """Print it by rich."""
        table = RichTable(title=plain(self.title), title_justify="left")
        for number, name in enumerate(self.header):
            table.add_column(plain(name), justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*map(plain, row))
        make_console().print(table)


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

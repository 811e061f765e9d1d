"""Write the commands of docs/reference.md from the commands themselves, so that neither forgets the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer.main

from speckv.benchmarks.cli.main import app
from speckv.benchmarks.common.tables import fill_sections
from speckv.controller.files import write_whole

PAGE = Path("docs/reference.md")


def section() -> str:
    """A heading, a sentence and a table of options for every command of `speckv`."""
    group: Any = typer.main.get_command(app)
    return "\n\n".join(_command(name, group.commands[name]) for name in sorted(group.commands))


def _command(name: str, command: Any) -> str:
    given = [parameter for parameter in command.params if parameter.name != "help"]
    places = " ".join(p.name.upper() for p in given if p.param_type_name == "argument")
    said = " ".join((command.help or "").split("\n\n")[0].split())
    lines = [f"### `speckv {' '.join(filter(None, (name, places)))}`", "", said, "", "| | default | |", "|---|---|---|"]
    for parameter in given:
        option = parameter.param_type_name == "option"
        shown = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
        default = parameter.default
        plain = "" if default in (None, "", False) or parameter.required or callable(default) else f"`{default}`"
        lines.append(f"| {shown if option else parameter.name.upper()} | {plain} | {_cell(parameter.help or '')} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def rendered(page: str) -> str:
    """``page`` with the section between its markers made anew."""
    return fill_sections(page, {"commands": section()})


def main() -> None:
    write_whole(PAGE, rendered(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()

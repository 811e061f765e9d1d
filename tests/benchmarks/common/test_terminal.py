"""What is printed is what was meant: brackets are no markup, colons no emoji, and nothing steers the terminal."""

from __future__ import annotations

import ast
import io
import sys
from typing import Any

import pytest
from pages import ROOT
from rich.console import Console
from typer.testing import CliRunner

from speckv.benchmarks.cli import findings as doctor
from speckv.benchmarks.cli import main as cli
from speckv.benchmarks.common import progress, terminal
from speckv.benchmarks.common.tables import Table

STRANGE = "pip install 'speckv[sglang]' [red]x[/] [/] :smile: \x1b[31m\x07"
SHOWN = "pip install 'speckv[sglang]' [red]x[/] [/] :smile: ?[31m?"


def test_a_table_shows_its_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    Table(f"title {STRANGE}", ["name", STRANGE], [["row", STRANGE]]).show()
    assert capsys.readouterr().out.count(SHOWN) == 3


def test_the_doctor_shows_its_findings_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding(STRANGE, STRANGE, False)])
    monkeypatch.setattr(sys, "argv", ["speckv", "doctor"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().out
    assert ended.value.code == 1 and said.count(SHOWN) == 2 and "not ok" in said


def test_a_mistake_is_said_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["speckv", "inspect", f"/absent/{STRANGE}"])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert SHOWN in said and "\x1b" not in said and said.count("\n") == 1


@pytest.mark.parametrize("drawn", [True, False])
def test_a_bar_shows_its_name_as_it_is(
    drawn: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = io.StringIO()

    def console(stderr: bool = False) -> Console:
        made = terminal.make_console(stderr)
        made.file, made.width, made._force_terminal = drawing, 200, drawn
        return made

    monkeypatch.setattr(progress, "make_console", console)
    with progress.progress() as report:
        report(STRANGE, 1, 1)
    said = drawing.getvalue() + capsys.readouterr().err
    assert SHOWN in said and "\x1b[31m\x07" not in said


def test_only_one_place_makes_consoles() -> None:
    """Each would take markup, unless it is told not to."""
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
                names = {alias.name for alias in node.names}
                assert "Console" not in names or path.name == "terminal.py", path
                assert "print" not in names, path


def options() -> list[tuple[str, Any]]:
    import typer.main

    group: Any = typer.main.get_command(cli.app)
    return [(name, parameter) for name, command in group.commands.items() for parameter in command.params]


def test_a_help_says_all_that_is_written_of_an_option() -> None:
    """rich takes brackets in it for markup, and drops them."""
    pages: dict[str, str] = {}
    for name, parameter in options():
        if name not in pages:
            page = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "250", "TERMINAL_WIDTH": "250"}).output
            pages[name] = " ".join(page.replace("│", " ").split())
        text = " ".join((getattr(parameter, "help", None) or "").split())
        assert text in pages[name], f"{name}: {text}"

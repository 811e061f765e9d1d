"""Tables fit a terminal of 80 columns with every head whole, and say beneath what their figures mean."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from bench_results import both_frameworks, save
from rich.console import Console

from speckv.benchmarks.bench.demo import DEMO_MODES, Line, table
from speckv.benchmarks.bench.rows import summary
from speckv.benchmarks.common import tables, terminal
from speckv.benchmarks.common.tables import Table
from speckv.benchmarks.report.reading import Result, read
from speckv.benchmarks.report.summary import tables as of_result
from speckv.controller.stats import Stats

WIDTH = 80
Shown = Callable[[Iterable[Table]], str]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a terminal of 80 columns shows."""
    drawing = io.StringIO()

    def console(stderr: bool = False) -> Console:
        made = terminal.make_console(stderr)
        made.file, made.width, made._force_terminal, made.no_color = drawing, WIDTH, True, True
        return made

    monkeypatch.setattr(tables, "make_console", console)

    def show(given: Iterable[Table]) -> str:
        drawing.seek(0)
        drawing.truncate()
        for one in given:
            one.show()
        return re.sub(r"\x1b\[[0-9;]*m", "", drawing.getvalue())

    return show


def fits(text: str, given: Table) -> None:
    lines = text.splitlines()
    assert lines and max(map(len, lines)) <= WIDTH and "…" not in text
    words = text.split()
    assert not [word for name in given.header for word in name.split() if word not in words]


@pytest.fixture
def result(tmp_path: Path) -> Result:
    return read(save(both_frameworks(), tmp_path / "r.json"))


def test_the_demos_table_fits_and_is_explained(shown: Shown) -> None:
    stats = Stats(rounds=123_456, emitted=1_234_567, drafted=1_000_000, accepted=999_999)
    lines = [Line(mode, 123_456, 10.0, 12, stats) for mode in (*DEMO_MODES, "speckv-chain")]
    for exact in (True, False):
        made = table(lines, 12, "bf16 target, bf16 draft, 12 prompts × 48 tokens, greedy", exact)
        text = shown([made])
        fits(text, made)
        for name in made.header[2:]:
            assert f"{name}: " in made.note
        assert ("near-tie" in made.note) is not exact
    assert re.search(r"\nspeckv +12345\.60 +1\.00× ", text)


def test_a_benchmarks_tables_fit_and_are_explained(shown: Shown, result: Result) -> None:
    made = of_result(result)
    assert len(made) == len(result.places) and made[-1].note and not made[0].note
    for one in made:
        fits(shown([one]), one)
    for name in ("Best fixed γ", "τ", "γ", "Same output", "95 % intervals"):
        assert name in made[-1].note


def test_servers_tables_fit(shown: Shown, tmp_path: Path) -> None:
    content: dict[str, Any] = both_frameworks()
    content["settings"]["servers"] = {"plain": "http://a:1", "speckv": "http://b:1"}
    (first, *_) = made = of_result(read(save(content, tmp_path / "r.json")))
    fits(shown([first]), first)
    assert made[-1].note.startswith("vs plain: ")


def test_what_is_wider_is_shown_in_parts_that_name_their_rows(shown: Shown, result: Result) -> None:
    content = both_frameworks()
    made = summary(content["rows"])
    assert sum(map(len, made.header)) > WIDTH
    text = shown([made])
    fits(text, made)
    assert text.count("hf-default") - text.count("vs hf-default") >= 2 * 2  # of each row in each part


def test_a_strangers_long_name_pushes_nothing_aside(shown: Shown) -> None:
    made = Table("t", ("server", "tokens/s", "a head of words"), [("x" * 300, "12.3", "4")])
    text = shown([made])
    fits(text, made)
    assert text.count("x") == 300 and "12.3" in text


def test_a_row_stands_out_only_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = io.StringIO()
    console = Console(file=drawing, width=WIDTH, force_terminal=True, color_system="standard")
    monkeypatch.setattr(tables, "make_console", lambda: console)
    Table("t", ("a", "b"), [("", "1"), ("speckv", "2")]).show()
    assert "\x1b[1mspeckv" not in drawing.getvalue()
    Table("t", ("a", "b"), [("", "1"), ("speckv", "2")], bold="speckv").show()
    assert "\x1b[1mspeckv" in drawing.getvalue()

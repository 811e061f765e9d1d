"""The replay's rows: the ratios by hand, what a cell holds, regimes, and the command that stores them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replays import DEPTH, REGIME, TOKENS, entry, random_positions

from speckv.benchmarks.baselines import PEERS
from speckv.benchmarks.collect.traces import write_traces
from speckv.benchmarks.replay import __main__ as command
from speckv.benchmarks.replay.cell import ADAPTIVE, BOUNDS, OURS, SINGLE, judge, orders_at, play_cell
from speckv.benchmarks.replay.engine import Played
from speckv.benchmarks.replay.regimes import Roofline, load_regimes
from speckv.benchmarks.replay.shapes import FIXED, SHAPES, TREES
from speckv.controller.errors import SpecKVError

BARS = ("vs_best_fixed", "vs_best_tree", "vs_plain")


def played(*ms: float) -> Played:
    """Two texts of 10 tokens each, of these times."""
    found = Played()
    for text, one in enumerate(ms):
        found.add([text], [10], one, 8, 6)
    return found


def test_ratios_by_hand() -> None:
    slow = {name: [played(200.0, 200.0)] for name in (*FIXED, *TREES)}
    all_played = slow | {
        "plain": [played(100.0, 100.0)],
        "fixed-2": [played(40.0, 60.0)],
        "fixed-3": [played(90.0, 30.0)],
        "tree-2-1": [played(20.0, 30.0)],
        "speckv": [played(30.0, 50.0), played(20.0, 20.0)],
    }
    rows = {(row["policy"], row["task"]): row for row in judge(all_played, ["code", "chat"], 1)}
    ours = rows["speckv", "all"]
    assert (ours["best_fixed"], ours["best_tree"], ours["orders"]) == ("fixed-2", "tree-2-1", 2)
    assert ours["tokens_per_s"] == pytest.approx(1e3 * (20 / 80 + 20 / 40) / 2)
    assert [ours[key] for key in BARS] == pytest.approx([(100 / 80 + 100 / 40) / 2, (50 / 80 + 50 / 40) / 2, 3.75])
    assert [ours[f"{key}_min"] for key in BARS] == pytest.approx([1.25, 0.625, 2.5])
    assert (ours["tau"], ours["drafted"], ours["verified"]) == (10, 8, 6)
    chat = rows["speckv", "chat"]
    assert chat["best_fixed"] == "fixed-3" and chat["vs_best_fixed"] == pytest.approx((30 / 50 + 30 / 20) / 2)
    assert rows["fixed-2", "all"]["vs_best_fixed"] == 1.0
    batch = judge(all_played, ["code", "chat"], 2)
    assert {row["task"] for row in batch} == {"all"} and batch[0]["tau"] == 5.0


@pytest.mark.parametrize("batch", [1, 4])
def test_a_cell_holds_every_policy(batch: int) -> None:
    positions = random_positions(4)
    found = play_cell(REGIME, positions, batch, "default")
    expected = {*SHAPES, *ADAPTIVE, *OURS, *(*SINGLE, *BOUNDS) * (batch == 1)}
    assert set(found) == expected and set(PEERS) <= expected | set(SINGLE)
    assert orders_at(1) == orders_at(4) == 12 and orders_at(16) == 3
    assert {name: len(orders) for name, orders in found.items() if len(orders) == 1 or name == "speckv"} == (
        dict.fromkeys((*SHAPES, *BOUNDS), 1) | {"speckv": 12} if batch == 1 else {"speckv": 12}
    )
    once = len(positions.matches)
    if batch == 1:
        assert all(one.tokens == once for orders in found.values() for one in orders)
        assert len({round(one.ms, 6) for one in found["speckv"]}) > 1, "it learns, so orders differ"
    else:
        assert all(one.tokens <= 4 * once for orders in found.values() for one in orders)
    assert all(
        set(row) >= {*BARS, "verified", "tau"} for row in judge(found, positions.tasks, batch) if row["task"] == "all"
    )


def test_the_shipped_regimes_are_readable() -> None:
    regimes = load_regimes()
    assert {"paper-fp16", "paper-int8", "paper-nf4", "8b70b", "here-bf16", "here-int8", "here-nf4"} < set(regimes)
    paper = regimes["paper-fp16"]
    assert 4 * paper.draft_ms(1) + paper.verify_table(1)[5] == pytest.approx(20.2 + 4 * 10.5)
    assert any(isinstance(regime.verify, Roofline) for regime in regimes.values())
    for regime in regimes.values():
        assert regime.source
        for batch in (1, 8):
            table = regime.verify_table(batch)
            assert (np.diff(table[2:]) >= 0).all() and table.min() > 0  # one row may take longer than two
            drafting, verify = regime.cost_model(batch).tables(batch, 20)
            assert verify[batch:] == pytest.approx(table[batch:], rel=0.005)
            assert drafting == pytest.approx(regime.draft_ms(batch) * np.arange(21))


def test_every_request_of_a_batch_brings_its_context_and_its_row_of_the_draft(tmp_path: Path) -> None:
    costs = {
        "draft_ms": {"1": 10.0, "3": 14.0},
        "verify_ms": {"1": 100.0, "11": 120.0},
        "draft_ms_per_1000_context": 5.0,
        "verify_ms_per_1000_context": 50.0,
    }
    (tmp_path / "costs.json").write_text(json.dumps({"version": 2, "about": {}, "batches": {}, **costs}))
    entry = {"compression": "fp16", "trace": "t", "costs": "costs.json", "source": "a test"}
    (tmp_path / "regimes.json").write_text(json.dumps({"mine": entry}))
    mine = load_regimes(tmp_path / "regimes.json")["mine"]
    assert mine.draft_ms(1) == pytest.approx(10 + 1) and mine.draft_ms(3) == pytest.approx(14 + 3)
    assert mine.verify_table(1)[11] == pytest.approx(120 + 10) and mine.verify_table(4)[11] == pytest.approx(120 + 40)
    batches = {"4": {"draft_ms": {"4": 13.0}, "verify_ms": {"4": 90.0, "8": 100.0}}}
    (tmp_path / "costs.json").write_text(json.dumps({"version": 2, "about": {}, "batches": batches, **costs}))
    mine = load_regimes(tmp_path / "regimes.json")["mine"]
    assert mine.draft_ms(1) == pytest.approx(10 + 1) and mine.draft_ms(4) == pytest.approx(13 + 4)
    assert mine.verify_table(1)[11] == pytest.approx(120 + 10)
    assert mine.verify_table(4)[[4, 6, 8]] == pytest.approx([130, 135, 140], rel=0.01)
    assert mine.cost_model(4).rest_ms(4) == pytest.approx(130)


def test_a_roofline_by_hand() -> None:
    """8B in bf16 at 3.0 TB/s with 1,000 tokens of 128 KiB each: 5.38 ms; computing takes over at 268 rows."""
    eight = Roofline(8.0e9, 131072, 3.0e12, 798e12)
    one, many = eight.times(1, np.array([1, 200, 400]))[[0, 2]], eight.times(16, np.array([16]))[0]
    assert one == pytest.approx([16e3 / 3e3 + 0.131072 / 3 + 0.3, 400 * 16e3 / 798e3 + 0.3])
    assert many == pytest.approx(16e3 / 3e3 + 16 * 0.131072 / 3 + 0.3)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"a": {}}', '{"a": {"compression": "fp16", "trace": "t", "draft_ms": 1}}', '{"a": {"roofline": 3}}'],
)
def test_a_broken_regimes_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "regimes.json"
    path.write_text(text)
    with pytest.raises(SpecKVError, match=r"regimes\.json: not a regimes file"):
        load_regimes(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_traces(tmp_path / "tiny.parquet", [entry(0), entry(1)], {"depth": DEPTH, "tokens": TOKENS, "prompts": 2})
    regime = {"compression": "fp16", "trace": "tiny", "draft_ms": 10, "verify_ms": {"1": 100, "2": 101}, "source": "-"}
    (tmp_path / "regimes.json").write_text(json.dumps({"one": regime, "other": regime | {"draft_ms": 30}}))
    return tmp_path


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    where = ["--regimes", str(folder / "regimes.json"), "--traces", str(folder), "--processes", "1"]
    monkeypatch.setattr("sys.argv", ["replay", *where, *more])
    with pytest.raises(SystemExit) as stop:
        command.main()
    return int(stop.value.code or 0)


def test_the_command_stores_every_row(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    out = folder / "replay.json"
    assert run(folder, monkeypatch, "--only", "one", "--batch", "1,4", "--json", str(out)) == 0
    stored = json.loads(out.read_text())
    rows = stored["rows"]
    assert {(row["regime"], row["batch"]) for row in rows} == {("one", 1), ("one", 4)}
    every = [row for row in rows if row["task"] == "all"]
    assert all(
        {"policy", "regime", "batch", "task", *BARS, *(f"{bar}_min" for bar in BARS), "verified", "tau"} <= set(row)
        for row in every
    )
    assert {row["task"] for row in rows} == {"all", "code", "chat"}
    assert {"traces", "regimes", "versions", "controller", "machine", "command"} <= set(stored)
    assert not list(folder.glob("*.jsonl"))
    assert "Batch 4: tokens per second" in capfd.readouterr().out

    # Stopped after one cell of two, it plays the other alone; what was done under another setting does not count.
    setting = {key: stored[key] for key in ("traces", "regimes", "versions", "controller")}
    kept = [row | {"tau": 77.0} for row in rows if row["batch"] == 1]
    lines = [{"setting": setting, "regime": "one", "batch": 1, "rows": kept}]
    lines.append({"setting": setting | {"controller": "other"}, "regime": "one", "batch": 4, "rows": []})
    out.with_suffix(".partial.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(folder, monkeypatch, "--only", "one", "--batch", "1,4", "--json", str(out)) == 0
    again = json.loads(out.read_text())["rows"]
    assert [row for row in again if row["batch"] == 1] == kept
    assert [row for row in again if row["batch"] == 4] == [row for row in rows if row["batch"] == 4]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--only one,third", "--only third: "),
        ("--batch 1,x", "--batch 1,x: give sizes of 1 or more"),
        ("--batch 0", "--batch 0: give sizes of 1 or more"),
        ("--plot a.gif", "--plot a.gif: name a .png or an .svg file"),
        ("--controller nowhere.onnx", "nowhere.onnx"),
        ("--traces /nowhere", "tiny.parquet: no such file"),
        ("--regimes /nowhere.json", "/nowhere.json: cannot be read (No such file or directory); give a file such as"),
    ],
)
def test_refused_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, more: str, words: str) -> None:
    assert run(folder, monkeypatch, *more.split()) == 2
    error = capfd.readouterr().err
    assert words in error and error.count("\n") == 1 and "Traceback" not in error

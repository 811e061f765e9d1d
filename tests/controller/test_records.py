"""Step records: what is refused and how, and what comes back from a file."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv.benchmarks.collect.steps import Step, make_row
from speckv.controller.errors import SpecKVError
from speckv.controller.records import (
    COLUMNS,
    PAPER_COLUMNS,
    RANGES,
    Row,
    as_stored,
    check_rows,
    read_records,
    write_records,
)

RUN: Row = {
    "compression": "nf4",
    "task": "code",
    "prompt_id": "code-1",
    "batch": 1,
    "target": "t",
    "draft": "d",
    "target_dtype": "bfloat16",
    "draft_dtype": "bfloat16",
    "versions": "{}",
}
MISSING = object()


def row(step: int = 0, gamma: int = 4, accepted: int = 2, drafted: int = 4) -> Row:
    confidences = [0.9 - 0.1 * number for number in range(drafted)]
    outcome = Step(7, [1 - c for c in confidences], confidences, accepted, accepted + 1)
    outcome.draft_ms, outcome.verify_ms = 12.5, 80.0
    return make_row(outcome, RUN | {"gamma": gamma}, step)


@st.composite
def valid_rows(draw: st.DrawFn) -> Row:
    gamma = draw(st.integers(1, 20))
    drafted = draw(st.integers(1, gamma))
    accepted = draw(st.integers(0, drafted))
    confidences = draw(st.lists(st.floats(1e-6, 1.0), min_size=drafted, max_size=drafted))
    entropies = draw(st.lists(st.floats(0.0, 12.0), min_size=drafted, max_size=drafted))
    ended = accepted > 0 and draw(st.booleans())
    outcome = Step(draw(st.integers(0, 10**6)), entropies, confidences, accepted, accepted + (not ended))
    outcome.draft_ms, outcome.verify_ms = draw(st.floats(0, 1e6)), draw(st.floats(0, 1e6))
    run = RUN | {"gamma": gamma, "compression": draw(st.sampled_from(["fp16", "int8", "nf4"]))}
    return make_row(outcome, run | {"task": draw(st.text(max_size=5))}, draw(st.integers(0, 10**6)))


def wrong_values(name: str) -> st.SearchStrategy[Any]:
    """Values that column ``name`` of ``row()`` cannot have."""
    kind = COLUMNS[name]
    anything = [st.none(), st.binary(max_size=3), st.dictionaries(st.text(max_size=2), st.none(), max_size=1)]
    if name in PAPER_COLUMNS:
        anything.append(st.just(MISSING))
    if kind is str:
        anything += [st.integers(), st.floats(), st.booleans()]
        return st.one_of(*anything, *([st.just("int4"), st.just("")] if name == "compression" else []))
    anything += [st.text(max_size=4), st.booleans()]
    numbers = st.sampled_from([math.nan, math.inf, -math.inf, -0.5, -1e9])
    if kind is list:
        element = st.one_of(numbers, st.none(), st.text(max_size=2), st.booleans())
        lists = element.map(lambda bad: [0.5, bad, 0.5, 0.5])
        lengths = st.sampled_from([[], [0.5], [0.5] * 3, [0.5] * 5])
        above = [st.just([0.5, 1.5, 0.5, 0.5])] if name == "confidences" else []
        return st.one_of(*anything, st.floats(), lists, lengths, *above)
    if kind is float:
        above = [st.floats(1.01, 1e9)] if RANGES.get(name, (0, 1))[1] < 2 else []
        return st.one_of(*anything, numbers, st.lists(st.floats(), max_size=2), *above)
    least, most = {"accepted": (0, 4), "tokens_produced": (2, 3)}.get(name, RANGES.get(name, (0, 2**31 - 1)))
    below, above_most = st.integers(max_value=int(least) - 1), st.integers(min_value=int(most) + 1)
    return st.one_of(*anything, st.floats(), below, above_most)


@settings(max_examples=300)
@given(
    st.sampled_from(list(COLUMNS)).flatmap(lambda n: st.tuples(st.just(n), wrong_values(n))),
    st.integers(1, 3),
)
def test_one_wrong_value_in_any_column_is_refused_by_file_row_and_column(wrong: tuple[str, Any], number: int) -> None:
    name, value = wrong
    rows = [row(step) for step in range(3)]
    if value is MISSING:
        del rows[number - 1][name]
    else:
        rows[number - 1][name] = value
    with pytest.raises(SpecKVError) as refusal:
        check_rows(rows, "some/file.parquet")
    text = str(refusal.value)
    assert text.startswith(f"some/file.parquet: row {number}: ")
    assert name in text and "\n" not in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accepted": 5}, "accepted 5 is not within 0 … gamma 4"),
        ({"acceptance_rate": 0.1}, "acceptance_rate 0.1 does not follow from 2 of gamma 4"),
        ({"accepted": 0, "tokens_produced": 1}, "acceptance_rate 0.5 does not follow"),
        ({"max_draft_entropy": 0.01}, "is above the max_draft_entropy"),
        ({"min_draft_confidence": 0.99}, "is below the min_draft_confidence"),
        ({"confidences": [0.9] * 3}, "4 entropies and 3 confidences"),
        ({"entropies": [0.1], "confidences": [0.9]}, "1 signals for 2 accepted of gamma 4"),
        ({"gamma": 3, "acceptance_rate": 0.7}, "4 signals for 2 accepted of gamma 3"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(changes: Row, reason: str) -> None:
    with pytest.raises(SpecKVError, match=reason):
        check_rows([row() | changes], "f")


@settings(max_examples=30)
@given(rows=st.lists(valid_rows(), min_size=1, max_size=4))
def test_valid_rows_come_back_from_parquet(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("records") / "deep" / "rows.parquet"
    write_records(rows, path)
    back = read_records(path)
    assert len(back) == len(rows)
    for written, read in zip(rows, back, strict=True):
        assert read.keys() == written.keys()
        for name, value in written.items():
            same = np.float32(value) if COLUMNS[name] in (float, list) else value
            assert np.array_equal(same, read[name]), name
    assert back == [as_stored(written) for written in rows]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def paper_rows(count: int = 4) -> list[Row]:
    return [{name: row(step)[name] for name in PAPER_COLUMNS} for step in range(count)]


def test_csv_with_the_papers_columns_reads_with_their_types(tmp_path: Path) -> None:
    rows = paper_rows()
    rows[1] |= {"mean_draft_entropy": 1, "max_draft_entropy": 2}  # "1" in a CSV, a float all the same
    rows[2] |= {"task": "7"}  # looks like a number, is a name
    assert read_records(write_csv(tmp_path / "paper.csv", rows)) == rows
    kinds = {name: type(value) for name, value in read_records(tmp_path / "paper.csv")[1].items()}
    assert kinds == PAPER_COLUMNS


@pytest.mark.parametrize(
    ("name", "cell", "reason"),
    [
        ("accepted", "three", "accepted is 'three', not int"),
        ("accepted", "2.5", "accepted is '2.5', not int"),
        ("accepted", "", "accepted is '', not int"),
        ("mean_draft_entropy", "nan", "mean_draft_entropy: nan is not a finite number"),
        ("compression", "fp4", "compression 'fp4' is none of fp16, int8, nf4"),
    ],
)
def test_a_bad_csv_cell_is_named_with_its_own_line(tmp_path: Path, name: str, cell: str, reason: str) -> None:
    rows = paper_rows()
    rows[2] |= {name: cell}
    path = write_csv(tmp_path / "paper.csv", rows)
    with pytest.raises(SpecKVError, match="row 4") as refusal:  # the header is line 1
        read_records(path)
    assert str(refusal.value).startswith(f"{path}: row 4: {reason}")


def test_entropies_in_bits_come_back_in_nats(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "paper.csv", paper_rows())
    as_written, converted = read_records(path), read_records(path, "bits")
    for before, after in zip(as_written, converted, strict=True):
        changed = {"mean_draft_entropy", "max_draft_entropy"}
        assert {name for name in before if before[name] != after[name]} <= changed
        for name in changed:
            assert after[name] == pytest.approx(before[name] * math.log(2))
    assert read_records(path, "nats") == as_written


def test_other_units_and_a_profile_s_own_records_in_bits_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "profiled.parquet"
    write_records([row()], path)
    with pytest.raises(SpecKVError, match="has entropies per token, which `speckv profile` writes in nats, not bits"):
        read_records(path, "bits")
    with pytest.raises(SpecKVError, match="entropy unit bytes: must be nats or bits"):
        read_records(path, "bytes")


def test_missing_columns_and_short_lines_of_a_csv(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "step"} for row in paper_rows()]
    with pytest.raises(SpecKVError, match="row 2: column step is missing"):
        read_records(write_csv(tmp_path / "no-step.csv", rows))
    path = write_csv(tmp_path / "short.csv", paper_rows())
    path.write_text(path.read_text().rstrip("\n").rsplit(",", 1)[0] + "\n")
    with pytest.raises(SpecKVError, match="row 5: min_draft_confidence is None"):
        read_records(path)


def test_files_that_hold_no_records(tmp_path: Path) -> None:
    def refusal(name: str, content: bytes | None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(SpecKVError) as error:
            read_records(tmp_path / name)
        text = str(error.value)
        assert name in text and "\n" not in text
        return text

    assert "no such file" in refusal("absent.parquet", None)
    assert "not a readable record file" in refusal("text.parquet", b"this is no parquet\n" * 9)
    assert "not a readable record file" in refusal("empty.parquet", b"")
    assert "not a readable record file" in refusal("latin1.csv", b"task,\xe9\n1,2\n")
    assert "no records in it" in refusal("empty.csv", b"")
    assert "no records in it" in refusal("header.csv", ",".join(PAPER_COLUMNS).encode())
    write_records([row()], tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    assert "not a readable record file" in refusal("cut.parquet", whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("accepted", [2, 2, None], "row 3: accepted is None, not int"),
        ("accepted", [2, 7, 2], "row 2: accepted 7 is not within 0 … gamma 4"),
        ("gamma", [4.0, 4.0, 4.0], "row 1: gamma is 4.0, not int"),
        ("draft_ms", [1.0, 1.0, math.nan], "row 3: draft_ms: nan is not a finite number"),
        ("confidences", [[0.5] * 4, [0.5] * 3, [0.5] * 4], "row 2: 4 entropies and 3 confidences"),
        ("entropies", ["a", "b", "c"], "row 1: entropies is 'a', not list"),
    ],
)
def test_a_parquet_of_foreign_making_is_checked(tmp_path: Path, name: str, values: list[Any], reason: str) -> None:
    rows = [row(step) | {name: value} for step, value in enumerate(values)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "foreign.parquet")
    with pytest.raises(SpecKVError) as refusal:
        read_records(tmp_path / "foreign.parquet")
    assert reason in str(refusal.value)


def test_writing_refuses_bad_and_uneven_rows(tmp_path: Path) -> None:
    later = row(1)
    del later["draft_ms"]
    for rows, reason in (
        ([row() | {"accepted": 9}], "row 1: accepted"),
        ([row(), later], "row 2: column draft_ms is missing"),
        ([later, row()], "row 1: column draft_ms is missing"),
    ):
        with pytest.raises(SpecKVError, match=reason):
            write_records(rows, tmp_path / "rows.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    write_records([row()], path)
    old = path.read_bytes()
    assert path.stat().st_mode & 0o044  # others may read it, as they may any file made here

    def breaks(table: pyarrow.Table, where: Path, **_: Any) -> None:
        Path(where).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pyarrow.parquet, "write_table", breaks)
    with pytest.raises(OSError, match="no space"):
        write_records([row(), row(1)], path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_rows_hold_what_a_round_told() -> None:
    outcome = Step(33, [0.5, 1.5], [0.8, 0.2], accepted=1, emitted=2, draft_ms=4.0, verify_ms=9.0)
    made = make_row(outcome, RUN | {"gamma": 3}, step=6)
    assert json.loads(json.dumps(made)) == RUN | {
        "gamma": 3,
        "step": 6,
        "accepted": 1,
        "acceptance_rate": 0.5,
        "tokens_produced": 2,
        "mean_draft_entropy": 1.0,
        "mean_draft_confidence": 0.5,
        "max_draft_entropy": 1.5,
        "min_draft_confidence": 0.2,
        "position": 33,
        "entropies": [0.5, 1.5],
        "confidences": [0.8, 0.2],
        "draft_ms": 4.0,
        "verify_ms": 9.0,
    }

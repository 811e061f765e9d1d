"""Step records: one row per speculation round, with the paper's columns and what else a profile knows."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS, summarize

PAPER_COLUMNS: dict[str, type] = {
    "compression": str,
    "gamma": int,
    "task": str,
    "step": int,
    "accepted": int,
    "acceptance_rate": float,
    "tokens_produced": int,
    "mean_draft_entropy": float,
    "mean_draft_confidence": float,
    "max_draft_entropy": float,
    "min_draft_confidence": float,
}
"""What the released data of arXiv 2605.02888 has; every record file must have these."""

PROFILE_COLUMNS: dict[str, type] = {
    "prompt_id": str,
    "position": int,
    "batch": int,  # prompts in the forwards that the times are of
    "entropies": list,  # nats, one per drafted token
    "confidences": list,  # top-1 probability, one per drafted token
    "draft_ms": float,
    "verify_ms": float,
    "target": str,
    "draft": str,
    "target_dtype": str,
    "draft_dtype": str,
    "versions": str,  # JSON
}
"""What `speckv profile` adds."""

Row = dict[str, Any]


def make_row(outcome: Any, run: Row, step: int) -> Row:
    """The record of a finished round (``controller.policy.Round``) within ``run``'s constants."""
    mean_entropy, mean_confidence, max_entropy, min_confidence = summarize(
        outcome.entropies, outcome.confidences
    )
    return {
        **run,
        "step": step,
        "accepted": outcome.accepted,
        "acceptance_rate": outcome.accepted / outcome.drafted,
        "tokens_produced": outcome.emitted,
        "mean_draft_entropy": mean_entropy,
        "mean_draft_confidence": mean_confidence,
        "max_draft_entropy": max_entropy,
        "min_draft_confidence": min_confidence,
        "position": outcome.position,
        "entropies": outcome.entropies,
        "confidences": outcome.confidences,
        "draft_ms": outcome.draft_ms,
        "verify_ms": outcome.verify_ms,
    }


def problem(row: Row) -> str | None:
    """Why ``row`` cannot be used, or None."""
    for name, kind in (PAPER_COLUMNS | PROFILE_COLUMNS).items():
        if name not in row:
            if name in PAPER_COLUMNS:
                return f"column {name} is missing"
            continue
        value = row[name]
        fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        if not fits:
            return f"{name} is {value!r}, not {kind.__name__}"
        if kind is float and not math.isfinite(value):
            return f"{name} is {value}"
    return _implausible(row)


def _implausible(row: Row) -> str | None:
    if row["compression"] not in COMPRESSION_LEVELS:
        return f"compression {row['compression']!r} is none of {', '.join(COMPRESSION_LEVELS)}"
    if row["gamma"] < 1:
        return f"gamma {row['gamma']} is below 1"
    if not 0 <= row["accepted"] <= row["gamma"]:
        return f"accepted {row['accepted']} is not within 0 … gamma {row['gamma']}"
    for name in ("acceptance_rate", "mean_draft_confidence", "min_draft_confidence"):
        if not 0 <= row[name] <= 1.0001:
            return f"{name} {row[name]} is not a probability"
    for name in ("mean_draft_entropy", "max_draft_entropy"):
        if row[name] < -0.001:
            return f"{name} {row[name]} is negative"
    signals = (row.get("entropies"), row.get("confidences"))
    if signals[0] is not None and signals[1] is not None:
        if len(signals[0]) != len(signals[1]):
            return f"{len(signals[0])} entropies and {len(signals[1])} confidences"
        if not max(1, row["accepted"]) <= len(signals[1]) <= row["gamma"]:
            return f"{len(signals[1])} signals for {row['accepted']} accepted of gamma {row['gamma']}"
        if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in (*signals[0], *signals[1])):
            return "a signal is not a finite number"
    return None


def check_rows(rows: Iterable[Row], source: str, first: int = 1) -> list[Row]:
    """``rows`` as a list; raises SpecKVError naming ``source``, the first bad row and why."""
    checked = []
    for number, row in enumerate(rows, start=first):
        if why := problem(row):
            raise SpecKVError(f"{source}: row {number}: {why}; nothing was read")
        checked.append(row)
    if not checked:
        raise SpecKVError(f"{source}: no records in it")
    return checked


def read_records(path: Path) -> list[Row]:
    """Read and check the records of a ``.parquet`` or ``.csv`` file (the latter with at least PAPER_COLUMNS)."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    if not path.is_file():
        raise SpecKVError(f"{path}: no such file; `speckv profile` writes one")
    try:
        table = (pyarrow.csv.read_csv if path.suffix == ".csv" else pyarrow.parquet.read_table)(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise SpecKVError(f"{path}: not a readable record file ({str(error).splitlines()[0]})") from None
    first = 2 if path.suffix == ".csv" else 1  # a CSV's line 1 is its header
    rows = table.to_pylist()
    for row in rows:
        for name in PAPER_COLUMNS:  # CSV has no types: 1 may stand for 1.0
            if PAPER_COLUMNS[name] is float and isinstance(row.get(name), int):
                row[name] = float(row[name])
    return check_rows(rows, str(path), first)


def write_records(rows: Sequence[Row], path: Path) -> None:
    """Write checked ``rows`` as Parquet, under a temporary name first."""
    import pyarrow
    import pyarrow.parquet

    check_rows(rows, "records to write")
    kinds = {str: pyarrow.string(), int: pyarrow.int32(), float: pyarrow.float32()}
    kinds[list] = pyarrow.list_(pyarrow.float32())
    names = [name for name in (PAPER_COLUMNS | PROFILE_COLUMNS) if name in rows[0]]
    schema = pyarrow.schema([(name, kinds[(PAPER_COLUMNS | PROFILE_COLUMNS)[name]]) for name in names])
    table = pyarrow.Table.from_pylist(list(rows), schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".writing")
    os.close(handle)
    try:
        pyarrow.parquet.write_table(table, temporary, compression="zstd", compression_level=9)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


class Journal:
    """An append-only JSON-lines file of finished pieces of work, so that a killed run resumes after the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Row]:
        """All whole entries; a last line that was cut by a kill is dropped."""
        if not self.path.exists():
            return []
        entries = []
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                entries.append(json.loads(line))
            except ValueError:
                if number < len(lines):
                    raise SpecKVError(f"{self.path}: line {number} is damaged; delete the file to start over") from None
                self.path.write_bytes(b"".join(lines[:-1]))
        return entries

    def append(self, entry: Row) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            stream.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

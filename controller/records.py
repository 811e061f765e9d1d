"""Step records: one row per speculation round, with the paper's columns and what else a profile knows."""

from __future__ import annotations

import csv
import json
import math
import os
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS, ENTROPY_FEATURES, nats_in

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

COLUMNS = PAPER_COLUMNS | PROFILE_COLUMNS

RANGES: dict[str, tuple[float, float]] = {
    "gamma": (1, 2**31 - 1),
    "step": (0, 2**31 - 1),
    "position": (0, 2**31 - 1),
    "batch": (1, 2**31 - 1),
    # Rounding may take an entropy below 0 and a probability above 1.
    "mean_draft_entropy": (-0.001, math.inf),
    "max_draft_entropy": (-0.001, math.inf),
    "entropies": (-0.001, math.inf),
    "mean_draft_confidence": (0, 1.0001),
    "min_draft_confidence": (0, 1.0001),
    "confidences": (0, 1.0001),
    "draft_ms": (0, math.inf),
    "verify_ms": (0, math.inf),
}

Row = dict[str, Any]


def problem(row: Row) -> str | None:
    """Why ``row`` cannot be used, or None."""
    for name, kind in COLUMNS.items():
        if name not in row:
            if name in PAPER_COLUMNS:
                return f"column {name} is missing"
            continue
        value = row[name]
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            return f"{name} is {value!r}, not {kind.__name__}"
        for number in value if isinstance(value, list) else [] if kind is str else [value]:
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
                return f"{name}: {number!r} is not a finite number"
            low, high = RANGES.get(name, (-math.inf, math.inf))
            if not low <= number <= high:
                return f"{name}: {number} is not within {low} … {high}"
    return _contradiction(row)


def _contradiction(row: Row) -> str | None:
    """Which columns of ``row``, each plausible by itself, cannot be true together."""
    accepted, gamma = row["accepted"], row["gamma"]
    if row["compression"] not in COMPRESSION_LEVELS:
        return f"compression {row['compression']!r} is none of {', '.join(COMPRESSION_LEVELS)}"
    if not 0 <= accepted <= gamma:
        return f"accepted {accepted} is not within 0 … gamma {gamma}"
    # One more than accepted, unless an accepted EOS ends the text.
    if not max(1, accepted) <= row["tokens_produced"] <= accepted + 1:
        return f"tokens_produced {row['tokens_produced']} does not follow from accepted {accepted}"
    if not accepted / gamma - 0.001 <= row["acceptance_rate"] <= min(1, accepted) + 0.001:
        return f"acceptance_rate {row['acceptance_rate']} does not follow from {accepted} of gamma {gamma}"
    if row["mean_draft_entropy"] > row["max_draft_entropy"] + 0.001:
        return f"mean_draft_entropy {row['mean_draft_entropy']} is above the max_draft_entropy"
    if row["mean_draft_confidence"] < row["min_draft_confidence"] - 0.001:
        return f"mean_draft_confidence {row['mean_draft_confidence']} is below the min_draft_confidence"
    if "entropies" in row and "confidences" in row:
        drafted = len(row["confidences"])
        if len(row["entropies"]) != drafted:
            return f"{len(row['entropies'])} entropies and {drafted} confidences"
        if not max(1, accepted) <= drafted <= gamma:
            return f"{drafted} signals for {accepted} accepted of gamma {gamma}"
    return None


def check_rows(rows: Iterable[Row], source: str, first: int = 1) -> list[Row]:
    """``rows`` as a list; raises SpecKVError naming ``source``, the first bad row and why."""
    checked = []
    for number, row in enumerate(rows, start=first):
        if why := problem(row):
            raise SpecKVError(f"{source}: row {number}: {why}; no record was used")
        checked.append(row)
    if not checked:
        raise SpecKVError(f"{source}: no records in it")
    return checked


def read_records(path: Path, entropy_unit: str = "nats") -> list[Row]:
    """Read and check the records of a ``.parquet`` or ``.csv`` file with at least PAPER_COLUMNS.

    ``entropy_unit`` is the file's: nats, as `speckv profile` writes them, or bits, as in the released data of arXiv
    2605.02888. What is returned is in nats.
    """
    nats = nats_in(entropy_unit)
    rows = _read_checked(path)
    if entropy_unit == "nats":
        return rows
    if any("entropies" in row for row in rows):
        raise SpecKVError(f"{path}: has entropies per token, which `speckv profile` writes in nats, not {entropy_unit}")
    return [row | {name: row[name] * nats for name in ENTROPY_FEATURES} for row in rows]


def _read_checked(path: Path) -> list[Row]:
    if not path.is_file():
        raise SpecKVError(f"{path}: no such file; `speckv profile` writes one")
    if path.suffix == ".csv":
        return check_rows(_read_csv(path), str(path), first=2)  # line 1 is the header
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise SpecKVError(f"{path}: not a readable record file ({str(error).splitlines()[0]})") from None
    return check_rows(rows, str(path))


def _read_csv(path: Path) -> list[Row]:
    """The rows of a CSV file, each cell by its column's type; what does not fit stays text, to be refused."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return [{name: _parsed(name, row[name]) for name in row} for row in csv.DictReader(stream)]
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise SpecKVError(f"{path}: not a readable record file ({error})") from None


def _parsed(name: str, text: Any) -> Any:
    kind = COLUMNS.get(name, str)
    try:
        return json.loads(text) if kind is list else kind(text)
    except (TypeError, ValueError):
        return text


def write_records(rows: Sequence[Row], path: Path) -> None:
    """Write checked ``rows`` as Parquet, under a temporary name first."""
    import pyarrow
    import pyarrow.parquet

    check_rows(rows, "records to write")
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    for number, row in enumerate(rows, start=1):
        if missing := set(names) - row.keys():
            raise SpecKVError(f"records to write: row {number}: column {min(missing)} is missing")
    kinds = {str: pyarrow.string(), int: pyarrow.int32(), float: pyarrow.float32()}
    kinds[list] = pyarrow.list_(pyarrow.float32())
    schema = pyarrow.schema([(name, kinds[COLUMNS[name]]) for name in names])
    table = pyarrow.Table.from_pylist(list(rows), schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        pyarrow.parquet.write_table(table, temporary, compression="zstd", compression_level=9)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def as_stored(row: Row) -> Row:
    """``row`` as :func:`read_records` gives it back: its known columns, floats rounded to float32."""
    rounded = {float: lambda value: array("f", [value])[0], list: lambda values: array("f", values).tolist()}
    return {name: rounded.get(kind, kind)(row[name]) for name, kind in COLUMNS.items() if name in row}

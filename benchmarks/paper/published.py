"""What arXiv 2605.02888 publishes of its results: the tables and numbers of its release, read and checked."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS, FEATURES
from speckv.controller.records import Row

COMPRESSIONS = tuple(COMPRESSION_LEVELS)
TASKS = ("code", "math", "chat", "summarization")
TABLE1 = {
    "compression": str,
    "Fixed-4": float,
    "Fixed-best": float,
    "Task-oracle": float,
    "SpecKV-fast": float,
}
TABLE1["SpecKV-accurate"] = float
PUBLISHED: dict[str, dict[str, type]] = {
    "paper_table1_policy_comparison": TABLE1,
    "paper_table2_detailed_breakdown": {
        "compression": str,
        "task": str,
        "Fixed-4": float,
        "SpecKV": float,
        "improvement_pct": float,
    },
    "paper_confidence_intervals": {"policy": str, "mean": float, "ci_lower": float, "ci_upper": float},
    "phase3_predictor_comparison": {"model": str, "val_mse": float, "val_corr": float},
    "phase3_policy_comparison": {
        "policy": str,
        "compression": str,
        "task": str,
        "mean_expected_tokens": float,
    },
}
"""The tables that are compared with, and the columns of each that are used."""

CELLS = tuple((compression, task) for compression in COMPRESSIONS for task in TASKS)
POLICIES = ("Fixed-4", "Fixed-best", "Task-oracle", "SpecKV-fast", "SpecKV-accurate")
KEYS: dict[str, list[tuple[str, ...]]] = {
    "paper_table1_policy_comparison": [(name,) for name in (*COMPRESSIONS, "Overall")],
    "paper_table2_detailed_breakdown": list(CELLS),
    "paper_confidence_intervals": [(name,) for name in POLICIES],
    "phase3_predictor_comparison": [(name,) for name in ("Ridge", "MLP-small", "MLP-medium", "RandomForest")],
    "phase3_policy_comparison": [
        (policy, *cell) for policy in ("Fixed-4", "Fixed-best", "Task-oracle", "SpecKV") for cell in CELLS
    ],
}
"""The text columns of each of those tables' rows, in order."""


def read_published(folder: Path) -> dict[str, Any]:
    """PUBLISHED's tables as rows, and ``paper_numbers``; SpecKVError naming a file that is not theirs."""
    published: dict[str, Any] = {
        name: read_table(existing(folder, f"{name}.csv"), columns) for name, columns in PUBLISHED.items()
    }
    for name, keys in KEYS.items():
        texts = [column for column, kind in PUBLISHED[name].items() if kind is str]
        if [tuple(row[column] for column in texts) for row in published[name]] != keys:
            raise SpecKVError(f"{folder / name}.csv: its rows are not the release's; take its own file")
    published["paper_numbers"] = _read_numbers(existing(folder, "paper_numbers.json"))
    return published


def read_table(path: Path, columns: Mapping[str, type]) -> list[Row]:
    """The ``columns`` of a CSV file, converted; SpecKVError naming the first line that does not fit."""
    rows = []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            for number, line in enumerate(csv.DictReader(stream), start=2):
                row: Row = {}
                for name, kind in columns.items():
                    text = line.get(name)
                    try:
                        row[name] = kind(text if text is not None else "")
                    except ValueError:
                        raise SpecKVError(f"{path}: line {number}: {name} is {text!r}, not {kind.__name__}") from None
                    if not row[name] if kind is str else not math.isfinite(row[name]):
                        raise SpecKVError(f"{path}: line {number}: {name} is {text!r}")
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecKVError(f"{path}: not a readable CSV file ({error})") from None
    if not rows:
        raise SpecKVError(f"{path}: no rows in it; take the release's own file")
    return rows


def existing(folder: Path, name: str) -> Path:
    """The path of file ``name``; raises SpecKVError where there is none."""
    if not (folder / name).is_file():
        raise SpecKVError(f"{folder / name}: no such file; --data takes the folder of the released data")
    return folder / name


def _read_numbers(path: Path) -> Any:
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        wanted = {
            "predictor": (
                "fast_test_mse",
                "fast_test_corr",
                "fast_overhead_ms",
                "reference_corr",
                "reference_overhead_ms",
            ),
            "results": ("overall_fixed4", "overall_speckv_fast", "overall_improvement_pct"),
            "statistical_test": ("p_value", "mean_diff"),
            "feature_importance": FEATURES,
        }
        for group, names in wanted.items():
            for name in names:
                float(numbers[group][name])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SpecKVError(f"{path}: not the release's numbers ({error}); take its own file") from None
    return numbers

"""Calibrated costs as a JSON file that a person can read and edit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from speckv.controller.curve import Costs
from speckv.controller.errors import SpecKVError
from speckv.controller.files import write_whole

VERSION = 1
KEYS = {"version", "about", "draft_ms", "verify_ms", "draft_ms_per_1000_context", "verify_ms_per_1000_context"}


def write_costs(costs: Costs, about: dict[str, Any], path: Path) -> None:
    """Write ``costs`` and what they are ``about`` (models, dtypes, machine: any JSON object) to ``path``."""
    entry = {
        "version": VERSION,
        "about": about,
        "draft_ms": {str(rows): round(ms, 4) for rows, ms in costs.draft.items()},
        "verify_ms": {str(rows): round(ms, 4) for rows, ms in costs.verify.items()},
        "draft_ms_per_1000_context": round(costs.draft_context, 4),
        "verify_ms_per_1000_context": round(costs.verify_context, 4),
    }
    write_whole(path, json.dumps(entry, indent=1) + "\n")


def read_costs(path: Path) -> tuple[Costs, dict[str, Any]]:
    """The costs of a file and what they are about; SpecKVError names the file, what is wrong, and the remedy."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecKVError(f"{path}: no such file; make it with speckv calibrate") from None
    except (OSError, ValueError) as error:
        raise SpecKVError(f"{path}: no JSON file of costs ({error}); make it again with speckv calibrate") from None
    if why := _problem(entry):
        raise SpecKVError(f"{path}: {why}; correct it, or make it again with speckv calibrate")
    tables = [{int(rows): float(ms) for rows, ms in entry[key].items()} for key in ("draft_ms", "verify_ms")]
    draft, verify = (dict(sorted(table.items())) for table in tables)
    context = (float(entry[f"{model}_ms_per_1000_context"]) for model in ("draft", "verify"))
    return Costs(draft, verify, *context), entry["about"]


def _problem(entry: Any) -> str | None:
    """Why ``entry`` is not what ``write_costs`` writes, or None."""
    if not isinstance(entry, dict) or entry.get("version") != VERSION:
        return f"not costs of version {VERSION}"
    if found := set(entry) ^ KEYS:
        return f"{', '.join(sorted(found))} missing or unknown"
    if not isinstance(entry["about"], dict):
        return "about is no object"
    for key in ("draft_ms", "verify_ms"):
        table = entry[key]
        if not isinstance(table, dict) or "1" not in table:
            return f"{key} does not say what 1 row takes"
        for rows, ms in table.items():
            if not (rows.isdecimal() and 1 <= int(rows) <= 1 << 20):
                return f"{key}: {rows!r} is no number of rows"
            if not _is_time(ms) or ms <= 0:
                return f"{key}: {ms!r} for {rows} rows is no time above 0"
    for key in ("draft_ms_per_1000_context", "verify_ms_per_1000_context"):
        if not _is_time(entry[key]) or entry[key] < 0:
            return f"{key}: {entry[key]!r} is no time of 0 or more"
    return None


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value < 1e9

"""Calibrated costs as a JSON file that a person can read and edit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from speckv.controller.curve import Costs
from speckv.controller.errors import SpecKVError
from speckv.controller.files import write_whole

VERSION = 2
MODELS = ("draft", "verify")
TABLES = {f"{model}_ms" for model in MODELS}
CONTEXTS = {f"{model}_ms_per_1000_context" for model in MODELS}


def write_costs(costs: Costs, about: dict[str, Any], path: Path) -> None:
    """Write ``costs`` and what they are ``about`` (models, dtypes, machine: any JSON object) to ``path``."""
    entry = {
        "version": VERSION,
        "about": about,
        **_tables(costs),
        "batches": {str(size): _tables(of) for size, of in costs.batches.items()},
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
    draft_context, verify_context = (float(entry[f"{model}_ms_per_1000_context"]) for model in MODELS)
    batches = {int(size): Costs(*_read(of)) for size, of in entry["batches"].items()}
    return Costs(*_read(entry), draft_context, verify_context, batches), entry["about"]


def _tables(costs: Costs) -> dict[str, dict[str, float]]:
    return {f"{model}_ms": {str(rows): round(ms, 4) for rows, ms in getattr(costs, model).items()} for model in MODELS}


def _read(tables: dict[str, Any]) -> tuple[dict[int, float], dict[int, float]]:
    draft, verify = (
        dict(sorted((int(rows), float(ms)) for rows, ms in tables[f"{model}_ms"].items())) for model in MODELS
    )
    return draft, verify


def _problem(entry: Any) -> str | None:
    """Why ``entry`` is not what ``write_costs`` writes, or None."""
    if not isinstance(entry, dict) or entry.get("version") != VERSION:
        return f"not costs of version {VERSION}"
    if found := set(entry) ^ {"version", "about", "batches", *TABLES, *CONTEXTS}:
        return f"{', '.join(sorted(found))} missing or unknown"
    if not isinstance(entry["about"], dict):
        return "about is no object"
    for key in sorted(TABLES):
        if not isinstance(entry[key], dict) or "1" not in entry[key]:
            return f"{key} does not say what 1 row takes"
    if not isinstance(entry["batches"], dict):
        return "batches is no object"
    for size, of in {"1": entry, **entry["batches"]}.items():
        if of is not entry and not (_is_count(size, 2) and isinstance(of, dict) and TABLES.issubset(of)):
            return f"batches: {size!r} is no number of requests with {' and '.join(sorted(TABLES))}"
        for key in sorted(TABLES):
            if why := _wrong(of[key]):
                return f"{key} of {size} requests: {why}"
    for key in sorted(CONTEXTS):
        if not _is_time(entry[key]) or entry[key] < 0:
            return f"{key}: {entry[key]!r} is no time of 0 or more"
    return None


def _wrong(table: Any) -> str | None:
    if not isinstance(table, dict):
        return "no object"
    for rows, ms in table.items():
        if not _is_count(rows):
            return f"{rows!r} is no number of rows"
        if not _is_time(ms) or ms <= 0:
            return f"{ms!r} for {rows} rows is no time above 0"
    return None


def _is_count(text: str, least: int = 1) -> bool:
    return text.isdecimal() and len(text) < 8 and least <= int(text) <= 1 << 20


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value < 1e9

"""Where heads of a target come from: named beside it, or made by ``python -m speckv.benchmarks.eagle3``."""

from __future__ import annotations

import json
from pathlib import Path

from speckv.controller.errors import SpecKVError
from speckv.integrations.models.loading import resolve
from speckv.integrations.models.mirrored import Progress, cache_dir

EAGLE3 = "eagle3"


def trained(pair: str) -> Path:
    """The folder of the head that is trained for the target of a named ``pair``."""
    return cache_dir() / EAGLE3 / pair


def with_head(pair: str, kind: str, progress: Progress = lambda *_: None) -> str:
    """``TARGET,HEAD`` of a ``pair``, by the draft's kind; the pair itself where the draft is a model."""
    if kind not in (EAGLE3, "mtp"):
        return pair
    if "," not in pair:
        head = trained(pair)
        if kind != EAGLE3 or not (head / "config.json").exists():
            make = f", or make one with python -m speckv.benchmarks.eagle3 --pair {pair}" if kind == EAGLE3 else ""
            raise SpecKVError(f"{pair}: no head of its target is here; give --pair TARGET,HEAD{make}")
        return f"{resolve(pair, progress).target},{head}"
    head = Path(pair.split(",", 1)[1].strip()).expanduser()
    if kind == EAGLE3 and (head / "config.json").exists():
        try:
            built = json.loads((head / "config.json").read_text(encoding="utf-8")).get("architectures") or ["none"]
        except (ValueError, AttributeError):
            raise SpecKVError(f"{head / 'config.json'}: no model's configuration; give --pair TARGET,HEAD") from None
        if EAGLE3 not in str(built).lower():
            raise SpecKVError(f"{head}: no EAGLE-3 head, but {built[0]}; give --pair TARGET,HEAD")
    return pair

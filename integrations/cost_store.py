"""Costs that were measured, remembered in the user's cache: a file for everything that they depend on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from speckv.controller.calibration import VERSION, read_costs, write_costs
from speckv.controller.curve import Costs
from speckv.controller.errors import SpecKVError
from speckv.integrations.models.mirrored import cache_dir


def costs_path(about: dict[str, Any]) -> Path:
    """Where the costs are remembered of what ``about`` says: models, precisions, device, versions, as plain JSON."""
    text = json.dumps([VERSION, about], sort_keys=True)
    return cache_dir() / "costs" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def remember(about: dict[str, Any], costs: Costs) -> Path:
    """Store ``costs`` where :func:`remembered` finds them, whole or not at all; returns the file."""
    path = costs_path(about)
    write_costs(costs, about, path)
    return path


def remembered(about: dict[str, Any]) -> Costs | None:
    """The costs that were stored for what ``about`` says, or None. A damaged file raises SpecKVError."""
    path = costs_path(about)
    if not path.exists():
        return None
    costs, of = read_costs(path)
    if of != about:
        raise SpecKVError(f"{path}: says of itself that it is about something else; delete it and calibrate again")
    return costs

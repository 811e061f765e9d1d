"""Cost regimes: what a drafted token and a verify take, and which trace they are replayed on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speckv.controller.calibration import read_costs
from speckv.controller.cost import CostModel, Costs
from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS
from speckv.controller.policy import Round

REGIMES = Path(__file__).parent.parent / "regimes.json"
TRACES = Path("benchmarks/data")
"""The trace files are in the repository, not in the package: the command runs from the root of a clone."""
MOST_ROWS = 21
CONTEXT = 200
"""Tokens: about the middle of the traces' texts."""


@dataclass(frozen=True)
class Regime:
    """Milliseconds: ``draft_ms`` a drafted token, ``verify_ms[n − 1]`` a verify of n rows, all a framework does in it.

    ``compression`` (fp16, int8, nf4) is the target's, ``trace`` the name of the trace file replayed.
    """

    name: str
    compression: str
    trace: str
    draft_ms: float
    verify_ms: tuple[float, ...]
    source: str = ""

    def step_ms(self, gamma: int) -> float:
        """t(γ): one step that drafts ``gamma`` tokens."""
        return gamma * self.draft_ms + self.verify_ms[gamma]

    @classmethod
    def of(cls, model: CostModel, name: str, compression: str, trace: str = "", source: str = "") -> Regime:
        """The regime in which a step takes what ``model`` says."""
        verify = tuple(model.verify_ms(rows) for rows in range(1, MOST_ROWS + 1))
        return cls(name, compression, trace, model.draft_ms, verify, source)

    def cost_model(self) -> CostModel:
        """The cost model that calibrating under this regime gives."""
        return CostModel(Costs({1: self.draft_ms}, dict(enumerate(self.verify_ms, start=1))))


def load_regimes(path: Path = REGIMES) -> dict[str, Regime]:
    """The regimes of a JSON file, by name; SpecKVError names what is wrong.

    Each has ``compression``, ``trace``, ``source``, and either ``costs``, a file of ``speckv calibrate`` (taken at
    CONTEXT tokens of context), or ``draft_ms`` and ``verify_ms``: milliseconds by rows, as ``{"1": 170, "3": 175}``,
    linear in between and beyond the last two.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        regimes = {name: _regime(name, entry, path.resolve().parent) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecKVError(f"{path}: not a regimes file ({error!r}); see benchmarks/regimes.json") from None
    for name, regime in regimes.items():
        if regime.compression not in COMPRESSION_LEVELS:
            raise SpecKVError(f"{path}: regime {name}: compression {regime.compression} is unknown")
    return regimes


def _regime(name: str, entry: dict[str, Any], folder: Path) -> Regime:
    if "costs" in entry:
        costs, _ = read_costs(folder / entry["costs"])
        model = CostModel(costs)
        model.observe(Round(position=CONTEXT))  # no time in it, only where in the text the costs are wanted
    else:
        table = {int(rows): float(ms) for rows, ms in entry["verify_ms"].items()}
        if 1 not in table or min(table.values()) <= 0:
            raise ValueError(f"{name}: verify_ms must begin with 1 row and be above 0")
        model = CostModel(Costs({1: float(entry["draft_ms"])}, dict(sorted(table.items()))))
    return Regime.of(model, name, entry["compression"], entry["trace"], entry["source"])

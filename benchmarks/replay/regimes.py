"""Cost regimes: what forwards of the draft and of the target take, and which trace is replayed under them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from speckv.controller.batch_curves import Baselines, BatchCurves
from speckv.controller.calibration import read_costs
from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs
from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS
from speckv.controller.policy import SIBLINGS

REGIMES = Path(__file__).parent.parent / "regimes.json"
TRACES = Path("benchmarks/data")
"""The trace files are in the repository, not in the package: the command runs from the root of a clone."""
MOST_LEVELS = 20
CONTEXT = 200
"""Tokens: about the middle of the traces' sequences."""

Floats = NDArray[np.float64]


class Forward(Protocol):
    """Milliseconds of one forward of a model."""

    def times(self, requests: int, rows: NDArray[np.int64]) -> Floats:
        """Of ``rows`` (R,) new positions in all of so many requests."""

    def knots(self, requests: int, most: int) -> list[int]:
        """Rows between which the time is a line."""


@dataclass(frozen=True)
class Measured:
    """By requests and rows, between them and beyond as in :class:`BatchCurves`; every request adds ``context_ms``."""

    ms: Baselines
    context_ms: float = 0.0

    def times(self, requests: int, rows: NDArray[np.int64]) -> Floats:
        return BatchCurves(self.ms).of(requests).times(rows) + requests * self.context_ms

    def knots(self, requests: int, most: int) -> list[int]:
        return BatchCurves(self.ms).of(requests).rows()[:-1]


@dataclass(frozen=True)
class Roofline:
    """max(bytes / bandwidth, 2 · parameters · rows / flops) + 0.3 ms; bytes = 2 · parameters + requests · context · kv.

    Modelled, not measured. ``bandwidth`` in bytes/s, ``kv`` in bytes a token of context, of which there are 1,000.
    """

    parameters: float
    kv: float
    bandwidth: float
    flops: float
    OVERHEAD_MS = 0.3
    CONTEXT = 1000

    def times(self, requests: int, rows: NDArray[np.int64]) -> Floats:
        memory = (2 * self.parameters + requests * self.CONTEXT * self.kv) / self.bandwidth
        found: Floats = 1e3 * np.maximum(memory, 2 * self.parameters * rows / self.flops) + self.OVERHEAD_MS
        return found

    def knots(self, requests: int, most: int) -> list[int]:
        memory = (2 * self.parameters + requests * self.CONTEXT * self.kv) / self.bandwidth
        knee = memory * self.flops / (2 * self.parameters)
        return sorted({requests, max(requests + 1, int(knee)), max(requests + 2, int(knee) + 1, most)})


@dataclass(frozen=True)
class Regime:
    """``compression`` (fp16, int8, nf4) is the target's, ``trace`` the name of the trace file replayed."""

    name: str
    compression: str
    trace: str
    draft: Forward
    verify: Forward
    source: str = ""

    def draft_ms(self, batch: int) -> float:
        """One level of a batch."""
        return float(self.draft.times(batch, np.array([batch]))[0])

    def verify_table(self, batch: int) -> Floats:
        """By rows, 0 … all that MOST_LEVELS with all siblings can have."""
        return self.verify.times(batch, np.arange(_most_rows(batch) + 1))

    def cost_model(self, batch: int = 1) -> CostModel:
        """The cost model that calibrating under this regime gives."""
        draft, verify = (self._table(forward, batch) for forward in (self.draft, self.verify))
        return CostModel(Costs(draft, verify))

    def _table(self, forward: Forward, batch: int) -> dict[int, float]:
        knots = np.array(forward.knots(batch, _most_rows(batch)))
        return dict(zip(knots.tolist(), forward.times(batch, knots).tolist(), strict=True))


def _most_rows(batch: int) -> int:
    return batch * (1 + MOST_LEVELS * (1 + SIBLINGS))


def load_regimes(path: Path = REGIMES) -> dict[str, Regime]:
    """The regimes of a JSON file, by name; SpecKVError names what is wrong.

    Each has ``compression``, ``trace``, ``source``, and one of ``costs``, a file of ``speckv calibrate`` (every
    request has CONTEXT tokens); ``draft_ms`` and ``verify_ms``, milliseconds by rows, as ``{"1": 170, "3": 175}``;
    ``roofline``, with the fields of :class:`Roofline` for ``draft`` and ``verify``.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        regimes = {name: _regime(name, entry, path.resolve().parent) for name, entry in entries.items()}
    except OSError as error:
        raise SpecKVError(
            f"{path}: cannot be read ({error.strerror}); give a file such as benchmarks/regimes.json"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpecKVError(f"{path}: not a regimes file ({error!r}); see benchmarks/regimes.json") from None
    for name, regime in regimes.items():
        if regime.compression not in COMPRESSION_LEVELS:
            raise SpecKVError(f"{path}: regime {name}: compression {regime.compression} is unknown")
    return regimes


def _regime(name: str, entry: dict[str, Any], folder: Path) -> Regime:
    draft: Forward
    verify: Forward
    if "costs" in entry:
        costs = read_costs(folder / entry["costs"])[0]
        batches = costs.by_requests
        draft = Measured({size: of.draft for size, of in batches.items()}, costs.draft_context * CONTEXT / 1e3)
        verify = Measured({size: of.verify for size, of in batches.items()}, costs.verify_context * CONTEXT / 1e3)
    elif "roofline" in entry:
        draft, verify = (Roofline(**entry["roofline"][model]) for model in ("draft", "verify"))
    else:
        table = {int(rows): float(ms) for rows, ms in entry["verify_ms"].items()}
        if 1 not in table or min(table.values()) <= 0:
            raise ValueError(f"{name}: verify_ms must begin with 1 row and be above 0")
        draft, verify = Measured({1: {1: float(entry["draft_ms"])}}), Measured({1: table})
    return Regime(name, entry["compression"], entry["trace"], draft, verify, entry["source"])

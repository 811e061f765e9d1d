"""Forward times by rows: guessed or calibrated beforehand, then timed by the loop."""

from __future__ import annotations

from bisect import bisect
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTES_PER_MS = 1.5e7
"""Memory bandwidth assumed before anything was timed (15 GB/s); only ratios of costs matter until then."""

ROW_SHARE = 0.03
"""Assumed extra verify time per further row before it was timed: small, as weights bound a forward's time."""

WINDOW = 24
"""Timings remembered per quantity. Their median is the estimate: half of them may be outliers, and a change
of the machine's load is believed after half a window."""

LIFE = 128
"""Rounds after which a timing counts only where fewer than three younger ones are known."""

FOLLOWS = 0.3
"""Share of a timing's deviation from what was expected that is put down to the machine and not to the rows."""

QUIET = 0.1
"""Deviations up to this share are noise and not the machine: followed, they would let rows not timed lately drift."""

LATEST = 5
"""Timings of whose deviations the median counts: two of them may be outliers."""

LEAST_MS = 1e-6


@dataclass(frozen=True)
class Costs:
    """Forward times of a pair in ms, as guessed or calibrated; no later change is written into them.

    ``draft`` and ``verify`` are by rows: new positions in one forward, over all requests of a batch. Between the
    rows given they are linear, and so beyond the last two. ``draft_context`` and ``verify_context`` are what every
    1,000 tokens of context add to one forward.
    """

    draft: Mapping[int, float]
    verify: Mapping[int, float]
    draft_context: float = 0.0
    verify_context: float = 0.0

    @classmethod
    def from_sizes(cls, target_bytes: float, draft_bytes: float) -> Costs:
        """A guess before anything was timed: a small batch's forward takes as long as reading the weights."""
        return cls.linear(draft_bytes / BYTES_PER_MS, target_bytes / BYTES_PER_MS)

    @classmethod
    def linear(cls, draft_ms: float, verify_ms: float, row_ms: float | None = None) -> Costs:
        """Of one row each, and what a further row adds to a verify (ROW_SHARE of it when left out)."""
        row = ROW_SHARE * verify_ms if row_ms is None else row_ms
        return cls({1: draft_ms, 2: draft_ms * (1 + ROW_SHARE)}, {1: verify_ms, 2: verify_ms + row})


@dataclass
class Curve:
    """Time by rows: a baseline times how much slower the timed row counts were, interpolated, never decreasing.

    ``baseline`` has its rows in ascending order. A timing is kept as a multiple of ``load``, the machine's slowness
    when it was made, so that one from a busy time does not make its rows dear for ever: those not timed lately slow
    down and speed up with those that are.
    """

    baseline: Mapping[int, float]
    timed: dict[int, deque[tuple[int, float]]] = field(default_factory=dict)
    slowness: dict[int, float] = field(default_factory=dict)
    anchors: dict[int, float] = field(default_factory=dict)
    rounds: int = 0
    load: float = 1.0
    surprises: deque[float] = field(default_factory=lambda: deque([1.0] * LATEST, maxlen=LATEST))

    def learn(self, rows: int, ms: float, rounds: int) -> float:
        """A forward of ``rows`` took ``ms``, in round number ``rounds``; returns by what factor ``load`` changed."""
        ms = max(ms, LEAST_MS)
        change = 1.0
        if rows in self.timed:  # else it is not known what was to be expected
            self.surprises.append(ms / self.time(rows))
            change = _beyond_noise(median(self.surprises)) ** FOLLOWS
        self.load *= change
        self.timed.setdefault(rows, deque(maxlen=WINDOW)).append((rounds, ms / self.load))
        self.rounds = rounds
        self.anchors.clear()
        return change

    def follow(self, change: float) -> None:
        """Nothing was timed, and elsewhere on the machine ``load`` changed by this factor."""
        self.load *= change
        self.anchors.clear()

    def time(self, rows: int) -> float:
        """Milliseconds of a forward of ``rows``."""
        if not self.anchors:
            self._settle()
        last = max(self.anchors)
        if rows <= last:
            return _interpolate(self.anchors, rows)
        return max(self.anchors[last], self._guess(rows) * self.factor(rows))

    def times(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """``time`` of ascending ``rows``."""
        if not self.anchors:
            self._settle()
        known = np.array([*self.anchors.items()])
        found: NDArray[np.float64] = np.interp(rows, known[:, 0], known[:, 1])
        beyond = int(np.searchsorted(rows, known[-1, 0], side="right"))
        if beyond < len(rows):  # _guess goes on in a line, and the factor is that of the last
            ends = int(rows[beyond]), int(rows[-1])
            line = np.interp(rows[beyond:], ends, [self._guess(row) * self.factor(row) for row in ends])
            found[beyond:] = np.maximum(known[-1, 1], line)
        return found

    def factor(self, rows: int) -> float:
        """How many times longer than the baseline a forward of ``rows`` takes."""
        if not self.anchors:
            self._settle()
        return self.load * (_interpolate(self.slowness, rows) if self.slowness else 1.0)

    def _settle(self) -> None:
        self.slowness = {rows: self._slowness(rows) for rows in sorted(self.timed)}
        highest = LEAST_MS
        for rows in sorted({*self.baseline, *self.timed}):
            factor = _interpolate(self.slowness, rows) if self.slowness else 1.0
            highest = self.anchors[rows] = max(highest, self._guess(rows) * factor * self.load)

    def _guess(self, rows: int) -> float:
        guess = _interpolate(self.baseline, rows)
        keys = list(self.baseline)
        if rows > keys[-1] and len(keys) > 1:
            slope = (self.baseline[keys[-1]] - self.baseline[keys[-2]]) / (keys[-1] - keys[-2])
            guess += max(0.0, slope) * (rows - keys[-1])
        return max(guess, LEAST_MS)

    def _slowness(self, rows: int) -> float:
        timings = list(self.timed[rows])
        young = [ms for at, ms in timings if at > self.rounds - LIFE]
        return median(young if len(young) >= 3 else [ms for _, ms in timings[-3:]]) / self._guess(rows)


def _beyond_noise(ratio: float) -> float:
    """By how much more than QUIET ``ratio`` is off 1."""
    if ratio > 1:
        return max(1.0, ratio / (1 + QUIET))
    return min(1.0, ratio * (1 + QUIET))


def _interpolate(table: Mapping[int, float], at: int) -> float:
    """Linear between the ascending keys of ``table``, constant outside of them."""
    if at in table:
        return table[at]
    keys = list(table)
    above = bisect(keys, at)
    if above in (0, len(keys)):
        return table[keys[min(above, len(keys) - 1)]]
    low, high = keys[above - 1], keys[above]
    return table[low] + (at - low) / (high - low) * (table[high] - table[low])

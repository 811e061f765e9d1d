"""Forward times by rows: guessed or calibrated beforehand, then timed by the loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median, median_low
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speckv.controller.arrays import Floats

BYTES_PER_MS = 1.5e7
"""Memory bandwidth assumed before anything was timed (15 GB/s); only ratios of costs matter until then."""

ROW_SHARE = 0.03
"""Assumed extra verify time per further row before it was timed: small, as weights bound a forward's time."""

WINDOW = 24
"""Timings remembered per quantity. Their median is the estimate: half of them may be outliers, and a change
of the machine's load is believed after half a window."""

LIFE, LEAST_YOUNG = 128, 3
"""A timing so many rounds older than the latest of as many rows counts only where fewer than LEAST_YOUNG are not."""

FOLLOWS = 0.3
"""Share of a timing's deviation from what was expected that is put down to the machine and not to the rows."""

QUIET = 0.1
"""Deviations up to this share are noise and not the machine: followed, they would let rows not timed lately drift."""

LATEST = 5
"""Timings of whose deviations the median counts: two of them may be outliers."""

LEAST_MS = 1e-3
"""No forward is faster, and a file of costs, which has four decimals, does not make nothing of it."""

FAR = 1 << 20
"""More rows than any forward has: up to here times are extrapolated."""


@dataclass(frozen=True)
class Costs:
    """Forward times of a pair in ms, as guessed or calibrated; no later change is written into them.

    ``draft`` and ``verify`` are of one request, by rows: new positions in one forward. Between the rows given they are
    linear, and so beyond the last two. ``draft_context`` and ``verify_context`` are what every 1,000 tokens of a
    request's context add to one forward. ``batches`` are by the number of requests, as far as it was timed: forwards
    by rows of all of them together, and no more.
    """

    draft: Mapping[int, float]
    verify: Mapping[int, float]
    draft_context: float = 0.0
    verify_context: float = 0.0
    batches: Mapping[int, Costs] = field(default_factory=dict)

    @property
    def by_requests(self) -> dict[int, Costs]:
        """Those of one request, and the ``batches``."""
        return {1: self, **self.batches}

    @classmethod
    def from_sizes(cls, target_bytes: float, draft_bytes: float) -> Costs:
        """A guess before anything was timed: a small batch's forward takes as long as reading the weights."""
        return cls.linear(draft_bytes / BYTES_PER_MS, target_bytes / BYTES_PER_MS)

    @classmethod
    def linear(cls, draft_ms: float, verify_ms: float, row_ms: float | None = None) -> Costs:
        """Of one row each, and what a further row adds to a verify (ROW_SHARE of it when left out)."""
        row = ROW_SHARE * verify_ms if row_ms is None else row_ms
        return cls({1: draft_ms, 2: draft_ms * (1 + ROW_SHARE)}, {1: verify_ms, 2: verify_ms + row})


class Curve:
    """Time by rows: a baseline times how much slower the timed row counts were, interpolated.

    It never decreases, but from one row to two: kernels for a vector are others than those for a matrix.

    ``baseline`` has its rows in ascending order; those beyond ``known``, if that is given, are guesses. A timing is
    kept as a multiple of ``load``, the machine's slowness when it was made, so that one from a busy time does not make
    its rows dear for ever: those not timed lately slow down and speed up with those that are.

    What the nearest fewer and more rows that were timed let expect counts as one timing each: a single one, of a busy
    moment, would keep its rows from being tried again.

    Beyond the most rows timed, time grows as the baseline's does; but where no more are known of that, up to twice as
    many rows no faster than from half as many: what is taken to be dear is never tried, and would stay so.
    """

    def __init__(self, baseline: Mapping[int, float], known: int | None = None) -> None:
        rows, times = [*baseline], np.maximum([*baseline.values()], LEAST_MS)
        slope = max(0.0, (times[-1] - times[-2]) / (rows[-1] - rows[-2])) if len(rows) > 1 else 0.0
        self._rows, self._known = rows, known or rows[-1]
        further = [FAR] * (rows[-1] < FAR)
        self._guesses = [*rows, *further], [*times, *(times[-1] + slope * (far - rows[-1]) for far in further)]
        self._timings: dict[int, deque[tuple[int, float]]] = {}
        self._medians: dict[int, float] = {}  # by rows, of their own timings alone
        self._slowness: dict[int, float] = {}
        self._load = 1.0
        self._surprises = deque([1.0] * LATEST, maxlen=LATEST)
        self._anchors: tuple[Floats, Floats] | None = None

    @property
    def timed(self) -> bool:
        """Whether anything was."""
        return bool(self._timings)

    @property
    def known(self) -> int:
        """The most rows that were given or timed."""
        return max([self._known, *self._timings])

    def has(self, rows: int) -> bool:
        """Whether a forward of ``rows`` was timed."""
        return rows in self._timings

    def timed_rows(self) -> dict[int, float]:
        """Milliseconds of a forward of each number of rows that was timed."""
        return {rows: self.time(rows) for rows in self._timings}

    def rows(self) -> list[int]:
        """Between these times are linear; the last is FAR."""
        return [int(row) for row in self._settled()[0]]

    def learn(self, rows: int, ms: float, rounds: int) -> float:
        """A forward of ``rows`` took ``ms``, in round number ``rounds``; returns by what factor the load changed."""
        ms = max(ms, LEAST_MS)
        change = 1.0
        if rows in self._timings:  # else it is not known what was to be expected
            self._surprises.append(ms / self.time(rows))
            change = _beyond_noise(median(self._surprises)) ** FOLLOWS
        self.follow(change)
        timings = self._timings.setdefault(rows, deque(maxlen=WINDOW))
        timings.append((rounds, ms / self._load))
        young = [multiple for at, multiple in timings if at > rounds - LIFE]
        lately = young if len(young) >= LEAST_YOUNG else [multiple for _, multiple in timings][-LEAST_YOUNG:]
        guess = float(np.interp(rows, *self._guesses))
        fewer, more = (row for row in self._medians if row < rows), (row for row in self._medians if row > rows)
        beside = [self._medians[row] * guess for row in (max(fewer, default=0), min(more, default=0)) if row]
        self._medians[rows] = median(lately) / guess
        self._slowness[rows] = median_low([*lately, *beside]) / guess
        return change

    def follow(self, change: float) -> None:
        """Nothing was timed, and elsewhere on the machine the load changed by this factor."""
        self._load *= change
        self._anchors = None

    def time(self, rows: int) -> float:
        """Milliseconds of a forward of ``rows``."""
        return float(np.interp(rows, *self._settled()))

    def times(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """``time`` of each of ``rows``."""
        found: NDArray[np.float64] = np.interp(rows, *self._settled())
        return found

    def _factors(self, rows: NDArray[np.integer[Any]]) -> Floats:
        timed = sorted(self._slowness)
        return np.interp(rows, timed, [self._slowness[row] for row in timed]) if timed else np.ones(rows.shape)

    def _settled(self) -> tuple[Floats, Floats]:
        """Rows and their times, between which lines are drawn; the last rows are FAR."""
        if self._anchors is None:
            rows = np.array(sorted({*self._rows, *self._timings, FAR}))
            times = np.interp(rows, *self._guesses) * self._factors(rows) * self._load
            several = int(rows[0] == 1)
            times[several:] = np.maximum.accumulate(times[several:])
            most = self.known
            if most > self._known:
                half, at = np.searchsorted(rows, [most / 2, most], side="right") - 1
                slope = (times[at] - times[half]) / (most - rows[half])
                twice = times[at] + most * min(slope, (times[-1] - times[at]) / (FAR - most))
                rows, times = np.append(rows[: at + 1], [2 * most, FAR]), np.append(times[: at + 1], [twice, times[-1]])
            self._anchors = rows, times
        return self._anchors


def _beyond_noise(ratio: float) -> float:
    """By how much more than QUIET ``ratio`` is off 1."""
    if ratio > 1:
        return max(1.0, ratio / (1 + QUIET))
    return min(1.0, ratio * (1 + QUIET))

"""Forward times by requests and rows: eight rows of eight requests take another time than eight rows of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from speckv.controller.arrays import Floats, Ints
from speckv.controller.curve import Curve

Baselines = Mapping[int, Mapping[int, float]]
"""Milliseconds by requests, then by rows of all of them; those of 1 request are there."""


def alike(size: int) -> int:
    """Batch sizes that are learnt about together, named by their largest: above 8 those up to a power of two."""
    return size if size <= 8 else 1 << (size - 1).bit_length()


class BatchCurves:
    """A :class:`Curve` of every batch size that was timed, which begins with what was known of the others then.

    What is known of a size not timed is what ``baselines`` say of it, between sizes given in proportion, times how
    much slower than these the next smaller and the next larger size timed are.
    """

    def __init__(self, baselines: Baselines) -> None:
        self._baselines: dict[int, Curve] = {}
        self._timed: dict[int, Curve] = {}
        self._guesses: dict[int, Curve] = {}
        for size, times in sorted(baselines.items()):
            if times:
                self._baselines[alike(size)] = self._given(size, dict(sorted(times.items())))

    @property
    def timed(self) -> bool:
        """Whether anything was."""
        return bool(self._timed)

    def has(self, size: int, rows: int) -> bool:
        """Whether a forward of ``rows`` of ``size`` requests was timed."""
        return alike(size) in self._timed and self._timed[alike(size)].has(rows)

    def of(self, size: int) -> Curve:
        """Times by rows of ``size`` requests: to look at, not to learn from."""
        size = alike(size)
        if size in self._timed:
            return self._timed[size]
        if size not in self._guesses:
            self._guesses[size] = self._guess(size)
        return self._guesses[size]

    def timed_rows(self) -> dict[int, dict[int, float]]:
        """Milliseconds of what was timed, by requests and rows."""
        return {size: curve.timed_rows() for size, curve in self._timed.items()}

    def learn(self, size: int, rows: int, ms: float, rounds: int) -> float:
        """A forward of ``rows`` of ``size`` requests took ``ms``; returns as :meth:`Curve.learn` does."""
        curve = self._timed[alike(size)] = self.of(size)
        change = curve.learn(rows, ms, rounds)
        self._guesses.clear()
        for other in self._timed.values():
            if other is not curve:
                other.follow(change)
        return change

    def follow(self, change: float) -> None:
        """As :meth:`Curve.follow`."""
        self._guesses.clear()
        for curve in self._timed.values():
            curve.follow(change)

    def factor(self, size: int, rows: int) -> float:
        """How many times longer than its baseline a forward of ``rows`` of ``size`` requests takes."""
        return self.of(size).time(rows) / float(self._baseline(alike(size), np.array([rows]))[0])

    def _given(self, size: int, times: dict[int, float]) -> Curve:
        """Between and beyond the rows of ``times`` it is as of fewer requests, in proportion."""
        if not self._baselines:
            return Curve(times)
        known = self._guess(alike(size))
        given, rows = np.array([*times]), np.array(sorted({*known.rows(), *times}))
        slower = np.interp(rows, given, np.array([*times.values()]) / known.times(given))
        return _curve(rows, slower * known.times(rows), max(known.known, *times))

    def _guess(self, size: int) -> Curve:
        timed, given = [*_beside(size, self._timed)], [*_beside(size, self._baselines)]
        curves = [self._timed[other] for other, _ in timed] + [self._baselines[other] for other, _ in given]
        rows = np.array(sorted({row for curve in curves for row in curve.rows()}))
        times = self._baseline(size, rows)
        if timed:
            times *= sum(share * self._timed[other].times(rows) / self._baseline(other, rows) for other, share in timed)
        return _curve(rows, times, max(curve.known for curve in curves))

    def _baseline(self, size: int, rows: Ints) -> Floats:
        found = np.zeros(rows.shape)
        for other, share in _beside(size, self._baselines):
            found += share * self._baselines[other].times(rows)
        return found


def _curve(rows: Ints, times: Floats, known: int) -> Curve:
    return Curve(dict(zip(rows.tolist(), times.tolist(), strict=True)), known)


def _beside(size: int, known: Mapping[int, Curve]) -> Iterator[tuple[int, float]]:
    """The nearest sizes of ``known`` and their shares of ``size``: itself, those on both sides, or the only side's."""
    fewer = max((other for other in known if other <= size), default=None)
    more = min((other for other in known if other >= size), default=None)
    if fewer is None or more is None or fewer == more:
        nearest = fewer if more is None else more
        if nearest is not None:
            yield nearest, 1.0
        return
    share = (size - fewer) / (more - fewer)
    yield fewer, 1.0 - share
    yield more, share

"""All positions of many traces in one set of arrays, so that a batch of requests is stepped at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speckv.benchmarks.collect.traces import Trace
from speckv.controller.policy import BEST

Ints = NDArray[np.int64]

AFTER = (0.1, 0.9, 0.05, 0.02, 0.01)
"""Signals of what is drafted after a run's end, an EOS say: by then nobody needs them."""

ROUNDS_EACH = 4
"""Requests that are served for each place of a batch, at least."""


class Positions:
    """Position p of all sequences one after the other: what a round that begins there would draft and have accepted.

    ``matches``, ``lengths``, ``ranks`` (P,) are as in ``Trace``, ``signals`` (P, depth, 1 + BEST) are ``Level`` rows,
    ``starts`` and ``ends`` the sequences' first positions and those after their last, ``end`` (P,) its own's, ``room``
    (P,) how many tokens may be drafted before a sequence's longest, of ``tokens``.
    """

    def __init__(self, traces: Sequence[Trace], tokens: int) -> None:
        counts = [trace.tokens for trace in traces]
        self.ends: Ints = np.cumsum(counts)
        self.starts: Ints = self.ends - counts
        self.end: Ints = np.repeat(self.ends, counts)
        self.matches: Ints = np.concatenate([trace.matches for trace in traces])
        self.lengths: Ints = np.concatenate([trace.lengths for trace in traces])
        self.room: Ints = np.concatenate([tokens - 1 - np.arange(count) for count in counts])
        # Beyond BEST all ranks are alike. One more, so that the position after the last can be looked up.
        ranks = np.concatenate([np.minimum(trace.ranks, BEST) for trace in traces])
        self.ranks: Ints = np.append(ranks, 0).astype(np.int64)
        entropies = np.concatenate([trace.entropies for trace in traces])
        best = np.concatenate([trace.best for trace in traces])
        self.signals: NDArray[np.float64] = np.concatenate((entropies[:, :, None], best), axis=2).astype(float)
        self.signals[np.isnan(entropies)] = AFTER
        self.tasks = [trace.task for trace in traces]

    @property
    def depth(self) -> int:
        """Tokens of the longest run."""
        return int(self.signals.shape[1])

    def accepted(self, at: Ints, gammas: Any) -> tuple[Ints, Ints]:
        """(spine tokens accepted, rank of the target's token where it was rejected, else 0) of rounds at ``at``."""
        accepted = np.minimum(self.matches[at], gammas)
        stopped = at + accepted
        rejected = (accepted < gammas) & (stopped < self.end[at])
        return accepted, np.where(rejected, self.ranks[stopped], 0)

    def order(self, batch: int, seed: int) -> list[int]:
        """The sequences' numbers in an order of ``seed``, often enough to keep ``batch`` places busy."""
        repeats = max(1, -(-ROUNDS_EACH * batch // len(self.starts)))
        numbers = list(range(len(self.starts))) * repeats
        random.Random(seed).shuffle(numbers)
        return numbers


class Served:
    """The requests being decoded: ``at`` (n,) is where each is; ``full`` until a place cannot be filled again."""

    def __init__(self, positions: Positions, order: Sequence[int], batch: int) -> None:
        self._positions = positions
        self._waiting = list(reversed(order))
        self.sequences = [self._waiting.pop() for _ in range(batch)]
        self.at: Ints = positions.starts[self.sequences]
        self.full = True

    def advance(self, emitted: Ints) -> list[int]:
        """Move on; the places at which a new sequence begins."""
        ends = self._positions.end[self.at]
        self.at = self.at + emitted
        new = []
        for place in np.nonzero(self.at >= ends)[0].tolist():
            if not self._waiting:
                self.full = False
                break
            self.sequences[place] = self._waiting.pop()
            self.at[place] = self._positions.starts[self.sequences[place]]
            new.append(place)
        return new

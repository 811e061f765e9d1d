"""What is known about decoding batches of one size, with the draft and without it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from speckv.controller.batch_cost import BatchCost
from speckv.controller.policies.batch import BatchRound

MEMORY = 0.97
"""Weight that a round keeps per later round."""

EVIDENCE = 6
"""Rounds with drafting before a guess of the costs is believed, and before what a batch size reached counts."""

FIRST_PROBE, LAST_PROBE = 16, 256
"""After how many plain rounds to draft again to see, doubled while it does not pay."""

FIRST_PLAIN = 16
"""After how many rounds with drafting to decode plainly, to time that; doubled every time, up to LAST_PROBE."""


class Pace:
    """What is known about one batch size: costs, and how fast a request went with drafting."""

    def __init__(self, cost: BatchCost) -> None:
        self.cost = cost
        self.tokens = self.ms = 0.0  # per request, decaying, of rounds with drafting
        self.seen = 0
        self.idle = self.busy = 0
        self.idle_ms = 0.0
        self.burst = 0
        self.probe_after = FIRST_PROBE
        self.plain_after = FIRST_PLAIN
        self._times: list[float] = []
        self._modelled = math.inf
        self._rounds = 0

    def times(self, gammas: Sequence[int], persistence: float) -> list[float]:
        """The cost model's round times, asked anew in every eighth round: a table of medians takes a while."""
        if self._rounds % 8 == 0 or self._rounds < 8:
            self._times = self.cost.times(gammas)
            tokens = np.cumsum(persistence ** np.asarray(gammas))
            self._modelled = float(np.max(tokens / np.asarray(self._times)))
        self._rounds += 1
        return self._times

    @property
    def plain(self) -> float:
        """Tokens per ms of one request without drafting."""
        return 1.0 / self.cost.rest_ms

    @property
    def rate(self) -> float:
        """Tokens per ms of one request with drafting: as reached, or by the best fixed γ as far as is known."""
        return max(self._modelled, self.tokens / self.ms if self.seen >= EVIDENCE else 0.0)

    @property
    def on_trial(self) -> bool:
        """Whether this round is to show what drafting brings."""
        return self.burst > 0

    @property
    def pays(self) -> bool:
        return self.rate >= self.plain

    def saved_ms(self, tokens: float) -> float:
        """By how much less drafting takes for so many tokens of every request."""
        return tokens * (1.0 / self.plain - 1.0 / self.rate)

    def add(self, outcome: BatchRound) -> None:
        """Learn from a round over this batch size."""
        if outcome.timed:
            self.cost.observe(outcome)
        if not outcome.active:
            self.busy = 0
            self.idle += 1
            self.idle_ms += outcome.verify_ms
            return
        self.busy += 1
        self.seen += 1
        self.burst = max(0, self.burst - 1)
        self.tokens = MEMORY * self.tokens + outcome.emitted / max(1, len(outcome.accepted))
        self.ms = MEMORY * self.ms + self.cost.round_ms(outcome)
        if self.pays:
            self.probe_after = FIRST_PROBE

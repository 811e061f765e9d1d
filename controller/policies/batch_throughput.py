"""Tokens per second for a batch: draft on while that pays, and leave the draft alone where it does not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from speckv.controller.batch_cost import BatchCost, ReadingCost
from speckv.controller.cost import Costs
from speckv.controller.decision import pays
from speckv.controller.errors import SpecKVError
from speckv.controller.features import prefix, summarize
from speckv.controller.policies.batch import (
    BatchPolicy,
    BatchRound,
    FixedBatchPolicy,
    LearnedBatchPolicy,
    Summary,
    TokensBatchPolicy,
)
from speckv.controller.policies.learned import Controller
from speckv.controller.policies.pace import EVIDENCE, LAST_PROBE, MEMORY, Pace

BURST = 3
"""Rounds of such a trial: the first pays for the draft's cache, so one alone would be judged too harshly."""

TRIAL_KEEPS = 0.25
"""Weight of what was known before a trial: what it shows is newer."""

LENGTH, LATELY = 128.0, 0.95
"""Tokens of output and of prompt expected of the first request, and the weight one keeps per later one."""

RESUME_SHARE = 0.02
"""Most of the time that may go into bringing the draft's cache up to date for a trial."""


class ThroughputBatchPolicy(LearnedBatchPolicy):
    """Draft on after i tokens if, for some horizon m,  Σ_requests Σ_{j<m} S_i·cʲ ≥ ρ·(T(i + m) − T(i)).

    ρ is in batch tokens per ms and, like the costs T, kept per batch size: the rate reached with drafting, or what the
    best fixed γ should reach by c and T where that is more, and at least that of plain decoding. Where drafting is
    slower than plain decoding it stops altogether, which spares the draft all work; ever rarer trials notice a
    change. The draft reads a prompt where what drafting saves on an output of the usual length pays for that; what
    it missed it reads where that is so of the usual prompt, and half an output pays for it.

    S_i is the controller's survival times a running correction k, c the running probability that a token
    following an accepted one is accepted too (as in ``ThroughputPolicy``). Of the first token, which is known
    before any draft forward, S_0 is the acceptance rate at γ = 1 given its own signals.

    ``costs`` are a guess of the forward times, for the first batch size seen; the others start from its timings.
    """

    def __init__(
        self,
        controller: Controller,
        level: int,
        costs: Costs,
        max_gamma: int = 8,
        per_token: bool = True,
        fallback_gamma: int = 4,
    ) -> None:
        super().__init__(controller, level, max_gamma, fallback_gamma)
        self.costs = costs
        self.per_token = per_token
        self.gammas = tuple(range(max_gamma + 1))
        self.reading = ReadingCost(costs)
        self._lengths, self._endings = LENGTH, 1.0
        self._rows, self._prompts = LENGTH, 1.0
        self._paces: dict[int, Pace] = {}
        self._pace: Pace | None = None
        self._size = 0
        self._times: list[float] = []
        self._followed, self._followers = 8.0, 10.0
        self._accepted = self._predicted = 8.0
        self._asked: list[tuple[int, float]] = []

    def pace(self, size: int) -> Pace:
        """Of the batch size; above 8 sizes share one with those up to the next power of two."""
        key = size if size <= 8 else 1 << (size - 1).bit_length()
        if key not in self._paces:
            seen = [known for known, pace in self._paces.items() if pace.seen >= EVIDENCE]
            if seen:
                nearest = min(seen, key=lambda known: abs(math.log(known / key)))
                self._paces[key] = Pace(self._paces[nearest].cost.like(key, self.max_gamma))
            else:
                self._paces[key] = Pace(BatchCost.guess(key, self.costs))
                self._paces[key].burst = EVIDENCE
        return self._paces[key]

    @property
    def persistence(self) -> float:
        """c: how often a drafted token that follows accepted ones is accepted too."""
        return min(0.99, self._followed / self._followers)

    @property
    def correction(self) -> float:
        """k: how many times more survives than predicted."""
        return self._accepted / self._predicted

    def warm(self, size: int, requests: int = 1, rows: int = 0) -> bool:
        pace = self.pace(size)
        pace.times(self.gammas, self.persistence)
        self._rows, self._prompts = LATELY * self._rows + rows, LATELY * self._prompts + requests
        return pace.pays and self._pays_to_read(pace, size, requests, rows)

    def _pays_to_read(self, pace: Pace, size: int, requests: int, rows: float) -> bool:
        """Whether ``requests`` in a batch of ``size`` are worth the draft's reading of their ``rows``."""
        return self.reading.ms(round(rows)) <= requests / size * pace.saved_ms(self.length)

    def read(self, rows: int, ms: float) -> None:
        self.reading.observe(rows, ms)

    def ended(self, tokens: int) -> None:
        self._lengths, self._endings = LATELY * self._lengths + tokens, LATELY * self._endings + 1

    @property
    def length(self) -> float:
        """Tokens of output that a request is expected to have."""
        return self._lengths / self._endings

    def begin(self, size: int, behind: int, previous: Sequence[Summary | None]) -> int:
        pace = self._pace = self.pace(size)
        self._size = size
        self._asked = []
        self._times = pace.times(self.gammas, self.persistence)
        if not self._drafting(pace, size, behind):
            return 0
        if self.per_token:
            return self.max_gamma
        return self._best_step([summary for summary in previous if summary is not None])

    def first(self, entropies: Sequence[Sequence[float]], confidences: Sequence[Sequence[float]]) -> bool:
        return self._go_on(entropies, confidences, 0) or (self._pace is not None and self._pace.on_trial)

    def more(self, entropies: Sequence[Sequence[float]], confidences: Sequence[Sequence[float]]) -> bool:
        return self._go_on(entropies, confidences, len(confidences[0]))

    def observe(self, outcome: BatchRound) -> None:
        pace = self.pace(outcome.size)
        pace.add(outcome)
        if outcome.drafted:
            self._learn(outcome)

    def _learn(self, outcome: BatchRound) -> None:
        """Update c and k by a round with drafting."""
        self._followed, self._followers = MEMORY * self._followed, MEMORY * self._followers
        for accepted in outcome.accepted:
            self._followed += accepted / len(outcome.accepted)
            self._followers += min(accepted + 1, outcome.drafted) / len(outcome.accepted)
        # Only questions whose answer is known: whether token `drafted` + 1 survives needs it drafted.
        known = [(drafted, total) for drafted, total in self._asked if drafted < outcome.drafted]
        if known and outcome.accepted:
            self._accepted = MEMORY * self._accepted
            self._predicted = MEMORY * self._predicted
            for drafted, total in known:
                self._accepted += sum(accepted > drafted for accepted in outcome.accepted) / len(outcome.accepted)
                self._predicted += total / self._size
        self._asked = []

    def _drafting(self, pace: Pace, size: int, behind: int) -> bool:
        """Whether this round may draft at all."""
        if pace.burst:
            return True
        resume_ms = self.reading.ms(behind)
        if pace.pays:
            if pace.busy >= pace.plain_after:  # a plain round, to time it
                pace.plain_after = min(2 * pace.plain_after, LAST_PROBE)
                return False
            if behind <= size:
                return True
            usual = self._pays_to_read(pace, size, 1, self._rows / self._prompts)
            return usual and resume_ms <= pace.saved_ms(self.length / 2)
        if pace.idle >= pace.probe_after and resume_ms <= RESUME_SHARE * pace.idle_ms:
            pace.idle, pace.idle_ms = 0, 0.0
            pace.probe_after = min(2 * pace.probe_after, LAST_PROBE)
            pace.burst = BURST
            pace.tokens, pace.ms = TRIAL_KEEPS * pace.tokens, TRIAL_KEEPS * pace.ms
            return True
        return False

    def _go_on(
        self, entropies: Sequence[Sequence[float]], confidences: Sequence[Sequence[float]], drafted: int
    ) -> bool:
        assert self._pace is not None
        signals = zip(entropies, confidences, strict=True)
        if drafted:  # the batch's acceptance stands for each request's
            summaries = [prefix(own, confident, self.persistence) for own, confident in signals]
        else:
            summaries = [summarize(own, confident) for own, confident in signals]
        if not all(map(self.usable, summaries)):
            return drafted < self.fallback_gamma

        def survival(summary: Summary) -> float:
            if drafted:
                return self.controller.survival(summary, self.level, drafted)
            return float(self.controller.acceptance_rates(summary, self.level, (1,))[0])

        total = self.total(summaries, survival)
        self._asked.append((drafted, total))
        total = min(float(self._size), total * self.correction)
        rate = self._size * max(self._pace.rate, self._pace.plain)
        return pays(0.0, total, self.persistence, rate, self._times, drafted)

    def _best_step(self, summaries: list[Summary]) -> int:
        assert self._pace is not None
        if not summaries or not all(map(self.usable, summaries)):
            return self.fallback_gamma
        gammas = np.asarray(self.gammas)
        rates = np.zeros(len(gammas))
        for summary in summaries:
            rates += np.asarray(self.controller.acceptance_rates(summary, self.level, self.gammas))
        rates *= self._size / len(summaries)
        self._asked = list(enumerate(np.diff(rates * gammas).tolist()))
        rates = np.minimum(self._size, rates * self.correction)
        rate = self._size * max(self._pace.rate, self._pace.plain)
        best = int(np.argmax(rates * gammas - rate * np.asarray(self._times)))
        return max(best, int(self._pace.on_trial))


def make_batch_policy(
    controller: Controller | None,
    objective: str,
    mode: str,
    level: int,
    costs: Costs,
    gamma: int | None = None,
    max_gamma: int = 8,
    fallback_gamma: int = 4,
) -> BatchPolicy:
    """The batch policy for an objective and a mode, or a fixed ``gamma``."""
    if gamma is not None:
        return FixedBatchPolicy(gamma)
    if controller is None:
        raise SpecKVError("a controller is needed unless gamma is fixed")
    if objective == "tokens":
        return TokensBatchPolicy(controller, level, max_gamma, fallback_gamma)
    return ThroughputBatchPolicy(controller, level, costs, max_gamma, mode == "token", fallback_gamma)

"""Our default: draft on while the next tokens are worth more than the time they take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speckv.controller.cost import CostModel
from speckv.controller.decision import best_for_throughput
from speckv.controller.features import summarize
from speckv.controller.policies.learned import Controller, LearnedPolicy
from speckv.controller.policy import Round

MEMORY = 0.97
"""Weight that a round keeps per later round: what is learnt is that of the last thirty or so."""

FIRST_PROBE, LAST_PROBE = 8, 128
"""After how many rounds without drafting to draft again to see, doubled while drafting does not pay; and after how
many with drafting to decode one token plainly, to time that too, doubled every time."""

PROBE_SHARE = 0.01
"""Most of the time that may go into preparing the draft's cache for nothing but a probe."""


class ThroughputPolicy(LearnedPolicy):
    """Maximises tokens per second; γ from 0 to ``max_gamma``, decided per drafted token or per step.

    With ρ the policy's own throughput (tokens per ms) and T(γ) the cost model's step time, drafting goes on
    after i tokens if for some horizon m ≥ 1

        Σ_{j<m} S_i · cʲ  ≥  ρ · (T(i + m) − T(i)).

    S_i is the controller's survival probability times a running correction k (accepted over predicted, so
    that a head trained on one pair, or on greedy steps, is calibrated on this one); c is the running
    probability that a token following an accepted one is accepted too. m = 1 alone would be the one-step
    rule; the horizon is there because verify times have steps, so one more token may be dear and the next
    three free.

    ρ is kept at least at plain decoding's rate, 1 / verify(1): a pair that does not pay ends at γ = 0, from
    where ever rarer probes notice a change.
    """

    def __init__(
        self,
        controller: Controller,
        level: int,
        cost: CostModel,
        max_gamma: int = 8,
        per_token: bool = True,
        fallback_gamma: int = 4,
    ) -> None:
        super().__init__(controller, level, max_gamma, fallback_gamma)
        self.cost = cost
        self.per_token = per_token
        self.gammas = tuple(range(max_gamma + 1))
        self._gammas = np.asarray(self.gammas, dtype=np.float32)
        self._limit = 0
        self._times: list[float] = []
        self._rate = 0.0
        self._tokens = self._ms = 0.0
        # Starting points, worth a few rounds of evidence: c = 0.8 and k = 1.
        self._followed, self._followers = 8.0, 10.0
        self._accepted = self._predicted = 8.0
        self._asked: list[tuple[int, float]] = []
        self._idle = 0
        self._probe_after = FIRST_PROBE
        self._busy = 0
        self._plain_after = FIRST_PROBE
        self._room = 0
        self._warm = False
        self._prefill_ms = self._since_prefill_ms = 0.0

    @property
    def rate(self) -> float:
        """ρ in tokens per ms."""
        plain = 1.0 / self.cost.verify_ms(1)
        return max(plain, self._tokens / self._ms) if self._ms else plain

    @property
    def correction(self) -> float:
        """k: how many times more survives than predicted."""
        return self._accepted / self._predicted

    def begin(self, room: int) -> int:
        if room > self._room:  # it only shrinks within a text, so this is another one, unknown to the draft
            self._warm = False
        self._room = room
        self._limit = min(self.max_gamma, room)
        self._asked = []
        if self._limit <= 0:
            return 0
        self._times = self.cost.step_times(self.gammas)
        self._rate = self.rate
        signals = self.last_signals
        if self._busy >= self._plain_after:
            return 0
        if signals is None:
            return self._limit if self.per_token else min(self.fallback_gamma, self._limit)
        if not self.usable(signals):
            self._limit = min(self.fallback_gamma, self._limit)
            return self._limit
        # The controller is asked for a probe too, or what comes of it could not correct k.
        probing = self._probe_is_due()
        if self.per_token:
            return self._limit if self._worth(signals, 0) or probing else 0
        return max(self._best_step(signals), int(probing))

    def more(self, entropies: Sequence[float], confidences: Sequence[float]) -> bool:
        signals = summarize(entropies, confidences)
        if not self.usable(signals):
            return len(confidences) < self.fallback_gamma
        return self._worth(signals, len(confidences))

    def observe(self, outcome: Round) -> None:
        super().observe(outcome)
        self.cost.observe(outcome)
        self._warm = self._warm or outcome.drafted > 0
        self._since_prefill_ms += outcome.verify_ms
        if outcome.draft_prefill:
            self._prefill_ms, self._since_prefill_ms = outcome.draft_ms, 0.0
        self._tokens = MEMORY * self._tokens + outcome.emitted
        self._ms = MEMORY * self._ms + self.cost.step_ms(outcome.drafted)
        if not outcome.drafted:
            if self._busy >= self._plain_after:
                self._plain_after = min(2 * self._plain_after, LAST_PROBE)
            self._busy = 0
            self._idle += 1
            return
        self._busy += 1
        trials = min(outcome.accepted + 1, outcome.drafted)
        self._followed = MEMORY * self._followed + outcome.accepted
        self._followers = MEMORY * self._followers + trials
        if self._asked:
            # Only questions whose answer is known: whether token `drafted` + 1 survives needs it drafted.
            known = [(drafted, survival) for drafted, survival in self._asked if drafted < outcome.drafted]
            self._accepted = MEMORY * self._accepted + sum(outcome.accepted > drafted for drafted, _ in known)
            self._predicted = MEMORY * self._predicted + sum(survival for _, survival in known)
        paid = outcome.emitted / self.cost.step_ms(outcome.drafted) >= 1.0 / self.cost.verify_ms(1)
        if self._idle >= self._probe_after and not paid:
            self._probe_after = min(2 * self._probe_after, LAST_PROBE)
        elif paid:
            self._probe_after = FIRST_PROBE
        self._idle = 0

    def _probe_is_due(self) -> bool:
        """Whether to draft now just to see; on a text new to the draft that costs a prefill, so there more rarely."""
        affordable = self._warm or self._prefill_ms <= PROBE_SHARE * self._since_prefill_ms
        return self._idle >= self._probe_after and affordable

    def _worth(self, signals: Sequence[float], drafted: int) -> bool:
        survival = self.controller.survival(signals, self.level, drafted)
        self._asked.append((drafted, survival))
        survival = min(1.0, survival * self.correction)
        persistence = min(0.99, self._followed / self._followers)
        gain = 0.0
        for horizon in range(drafted + 1, self._limit + 1):
            gain += survival
            survival *= persistence
            if gain >= self._rate * (self._times[horizon] - self._times[drafted]):
                return True
        return False

    def _best_step(self, signals: Sequence[float]) -> int:
        rates = np.asarray(self.controller.acceptance_rates(signals, self.level, self.gammas))
        self._asked = list(enumerate(np.diff(rates * self._gammas).tolist()))
        rates = np.minimum(1.0, rates * self.correction)
        times = np.asarray(self._times)
        return min(self.gammas[int(best_for_throughput(rates, self._gammas, times, self._rate))], self._limit)

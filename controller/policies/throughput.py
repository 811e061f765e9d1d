"""Our default: draft on while the next tokens are worth more than the time they take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speckv.controller.cost import CostModel
from speckv.controller.decision import best_for_throughput, pays
from speckv.controller.features import RecentAcceptance, prefix
from speckv.controller.policies.learned import Controller, LearnedPolicy
from speckv.controller.policy import Round

DEFAULT_CEILING, HIGHEST_CEILING = 12, 20
"""Most tokens a round drafts unless told otherwise, and the most that can be asked for. The default is lifted to the
latter once a round has been accepted up to it: where a draft token costs an eighth of a verify, that is worth 1 %."""

MEMORY = 0.97
"""Weight that a round keeps per later round in ρ and c: what is learnt is that of the last thirty or so."""

CALM, DOUBT = 0.99, 16.0
"""The same for k, and the weight of its starting value 1: k is there for a lasting bias, not to chase luck."""

FIRST_PROBE, LAST_PROBE = 8, 128
"""After how many rounds without drafting to draft again to see, doubled while drafting does not pay; and after how
many with drafting to decode one token plainly, to time that too, doubled every time."""

TRUST = 4.0
"""Weight of the starting value 1 of o: enough to go by what is seen. From 0 a pair whose second row is dear stays at
γ = 0, since it is drafting on that pays for it: 1.02 of plain instead of 1.13 where an int8 target was replayed."""

CLEARLY = 1.1
"""A probe has paid if it beat plain decoding by this factor: one lucky token where it can just break even has not."""

PROBE_SHARE = 0.01
"""Most of the time that may go into preparing the draft's cache for nothing but a probe."""


class Correction:
    """k: how many times more survives than the controller predicts, from the answers that are known."""

    def __init__(self) -> None:
        self._survived = self._predicted = DOUBT

    def add(self, survived: float, predicted: float) -> None:
        self._survived = CALM * self._survived + survived
        self._predicted = CALM * self._predicted + predicted

    @property
    def value(self) -> float:
        return self._survived / self._predicted


class ThroughputPolicy(LearnedPolicy):
    """Maximises tokens per second; γ from 0 to ``max_gamma`` (None: DEFAULT_CEILING), per drafted token or per step.

    With ρ the policy's own throughput (tokens per ms) and T(γ) the cost model's step time, drafting goes on
    after i tokens if for some horizon m ≥ 1

        Σ_{j<m} S_i · cʲ  ≥  ρ · (T(i + m) − T(i)).

    S_i is the controller's survival probability times a running correction k (survived over predicted, one for the
    first token of a round and one for the others), so that a head trained on one pair, or on greedy steps, is
    calibrated on this one; c is the running probability that a token following an accepted one is accepted too.
    m = 1 alone would be the one-step rule; the horizon is there because verify times have steps, so one more token
    may be dear and the next three free.

    For a round's first token S_0 is worth more than itself: what follows is drafted only if it then pays, so seeing
    the first token is an option. To the gain of every horizon is added o · S_0; o is the running mean, per expected
    acceptance of the first token, of what rounds brought beyond it: (accepted − [accepted ≥ 1]) − ρ · (T(γ) − T(1)).
    It starts at 1, since only drafting shows what drafting on is worth.

    ρ is kept at least at plain decoding's rate, 1 / verify(1): a pair that does not pay ends at γ = 0, from
    where ever rarer probes notice a change.
    """

    def __init__(
        self,
        controller: Controller,
        level: int,
        cost: CostModel,
        max_gamma: int | None = None,
        per_token: bool = True,
        fallback_gamma: int = 4,
    ) -> None:
        ceiling = DEFAULT_CEILING if max_gamma is None else max_gamma
        super().__init__(controller, level, ceiling, fallback_gamma)
        self.cost = cost
        self.per_token = per_token
        self._may_lift = max_gamma is None
        self._reach(ceiling)
        self._limit = 0
        self._times: list[float] = []
        self._rate = 0.0
        self._tokens = self._ms = 0.0
        self._followed, self._followers = 8.0, 10.0  # c starts at 0.8, worth a few rounds of evidence
        self._beyond, self._firsts = TRUST, TRUST
        self._corrections = (Correction(), Correction())
        self._recent = RecentAcceptance()
        # drafted, P(accepted > drafted) as predicted, and as corrected
        self._asked: list[tuple[int, float, float]] = []
        self._idle = 0
        self._probe_after = FIRST_PROBE
        self._busy = 0
        self._plain_after = FIRST_PROBE
        self._warm = False
        self._prefill_ms = self._since_prefill_ms = 0.0

    def _reach(self, max_gamma: int) -> None:
        self.max_gamma = max_gamma
        self.gammas = tuple(range(max_gamma + 1))
        self._gammas = np.asarray(self.gammas, dtype=np.float32)

    @property
    def rate(self) -> float:
        """ρ in tokens per ms."""
        plain = 1.0 / self.cost.verify_ms(1)
        return max(plain, self._tokens / self._ms) if self._ms else plain

    def correction(self, drafted: int) -> float:
        """k after ``drafted`` tokens of a round."""
        return self._corrections[min(drafted, 1)].value

    @property
    def predicted(self) -> list[tuple[int, float]]:
        """(i, P(accepted > i)) of every i that the latest round was decided at, as it was believed then."""
        return [(drafted, believed) for drafted, _, believed in self._asked]

    def start(self) -> None:
        self._recent.restart()
        self.last_signals = None
        self._warm = False  # the draft has not seen this text

    def begin(self, room: int) -> int:
        self._limit = min(self.max_gamma, room)
        self._asked = []
        if self._limit <= 0:
            return 0
        self._times = self.cost.step_times(self.gammas)
        self._rate = self.rate
        if self._busy >= self._plain_after:
            return 0
        # The controller is asked for a probe too, or what comes of it could not correct k.
        probing = self._probe_is_due()
        if self.per_token:
            return self._limit if self._worth((), (), 0) or probing else 0
        if self.last_signals is None:
            return min(self.fallback_gamma, self._limit)
        if not self.usable(self.last_signals):
            self._limit = min(self.fallback_gamma, self._limit)
            return self._limit
        return max(self._best_step(self.last_signals), int(probing))

    def more(self, entropies: Sequence[float], confidences: Sequence[float]) -> bool:
        if not self.usable((sum(entropies), sum(confidences))):
            return len(confidences) < self.fallback_gamma
        return self._worth(entropies, confidences, len(confidences))

    def observe(self, outcome: Round) -> None:
        super().observe(outcome)
        self.cost.observe(outcome)
        if self._may_lift and outcome.accepted >= self.max_gamma:
            self._reach(HIGHEST_CEILING)
        self._recent.add(outcome.accepted, outcome.drafted)
        self._warm = self._warm or outcome.drafted > 0
        self._since_prefill_ms += outcome.verify_ms
        if outcome.draft_prefill:
            self._prefill_ms, self._since_prefill_ms = outcome.draft_ms, 0.0
        elif outcome.verify_prefill:  # the draft's is then guessed: as much shorter as its forwards are
            self._prefill_ms = outcome.verify_ms * self.cost.draft_ms / self.cost.verify_ms(1)
        self._tokens = MEMORY * self._tokens + outcome.emitted
        step_ms = self.cost.step_ms(outcome.drafted)
        self._ms = MEMORY * self._ms + step_ms
        if not outcome.drafted:
            if self._busy >= self._plain_after:
                self._plain_after = min(2 * self._plain_after, LAST_PROBE)
            self._busy = 0
            self._idle += 1
            return
        self._busy += 1
        self._followed = MEMORY * self._followed + outcome.accepted
        self._followers = MEMORY * self._followers + min(outcome.accepted + 1, outcome.drafted)
        further = max(0, outcome.accepted - 1) - self._rate * (step_ms - self.cost.step_ms(1))
        self._beyond = MEMORY * self._beyond + further
        if self._asked and self._asked[0][0] == 0:
            self._firsts = MEMORY * self._firsts + self._asked[0][1]
        for drafted, survival, _ in self._asked:
            if drafted < outcome.drafted:  # else it is not known whether token `drafted` + 1 would have survived
                self._corrections[min(drafted, 1)].add(outcome.accepted > drafted, survival)
        paid = outcome.emitted / step_ms >= CLEARLY / self.cost.verify_ms(1)
        if self._idle >= self._probe_after and not paid:
            self._probe_after = min(2 * self._probe_after, LAST_PROBE)
        elif paid:
            self._probe_after = FIRST_PROBE
        self._idle = 0

    def _probe_is_due(self) -> bool:
        """Whether to draft now just to see; on a text new to the draft that costs a prefill, so there more rarely."""
        affordable = self._warm or self._prefill_ms <= PROBE_SHARE * self._since_prefill_ms
        return self._idle >= self._probe_after and affordable

    def _worth(self, entropies: Sequence[float], confidences: Sequence[float], drafted: int) -> bool:
        signals = prefix(entropies, confidences, self._recent.value)
        survival = self.controller.survival(signals, self.level, drafted)
        believed = min(1.0, survival * self.correction(drafted))
        self._asked.append((drafted, survival, believed))
        persistence = min(0.99, self._followed / self._followers)
        gain = 0.0 if drafted else believed * max(0.0, self._beyond / self._firsts)
        return pays(gain, believed, persistence, self._rate, self._times[: self._limit + 1], drafted)

    def _best_step(self, signals: Sequence[float]) -> int:
        rates = self.controller.acceptance_rates(signals, self.level, self.gammas)
        survivals = np.diff(np.asarray(rates) * self._gammas)
        believed = survivals.copy()
        believed[0] *= self.correction(0)
        believed[1:] *= self.correction(1)
        believed = believed.clip(0.0, 1.0)
        self._asked = list(zip(range(len(believed)), survivals.tolist(), believed.tolist(), strict=True))
        expected = np.concatenate(([0.0], np.cumsum(believed)))
        rates = expected / np.maximum(1, self._gammas)
        best = best_for_throughput(rates, self._gammas, np.asarray(self._times), self._rate)
        return min(self.gammas[int(best)], self._limit)

"""Policies for a batch: they draft far, little, or not at all, and no fixed γ beats them at costs like a server's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from speckv.controller.cost import Costs
from speckv.controller.policies.batch import BatchPolicy, BatchRound, FixedBatchPolicy, TokensBatchPolicy
from speckv.controller.policies.batch_throughput import ThroughputBatchPolicy
from speckv.controller.policies.pace import EVIDENCE
from speckv.integrations.runtime import Controller

CEILING = 8


@dataclass(frozen=True)
class Busy:
    """A server with ``size`` requests, its costs in ms about those of SGLang on two cores.

    A drafted token is accepted with the probability that the draft gives it: 0.98 of six in ten, else 0.55.
    """

    size: int
    row_ms: float = 8.0
    sure: float = 0.98
    unsure: float = 0.55

    def draft_ms(self, gamma: int) -> float:
        return max(0, gamma - 1) * (90.0 + 9 * self.size)

    def verify_ms(self, gamma: int) -> float:
        return 190.0 + 10 * self.size + self.row_ms * self.size * (gamma + 1)

    def extend_ms(self, gamma: int) -> float:
        return 93.0 + 3 * self.size * (gamma + 1)

    def fixed(self, gamma: int) -> float:
        """Tokens per second of a request with a fixed γ, in the long run; without the draft's work at 0."""
        each = 0.6 * self.sure + 0.4 * self.unsure
        work = self.draft_ms(gamma) + self.extend_ms(gamma) if gamma else 0.0
        return 1e3 * sum(each**i for i in range(gamma + 1)) / (self.verify_ms(gamma) + work)

    def serve(self, policy: BatchPolicy, count: int, seed: int = 0) -> float:
        """Tokens per second of a request under ``policy`` in ``count`` rounds, whose times vary by a twentieth."""
        generator = np.random.default_rng(seed)
        tokens = ms = behind = 0.0
        for _ in range(count):
            this = BatchRound(self.size)
            confidences = np.where(generator.random((self.size, CEILING)) < 0.6, self.sure, self.unsure)
            entropies = 4.0 * (1.0 - confidences)
            this.active = policy.begin(self.size, int(behind), [None] * self.size) > 0
            if this.active and behind:
                this.catch_up, spent = int(behind) + self.size, 90.0 + 1.5 * behind
                policy.read(this.catch_up, spent)
                ms += spent
            behind = 0.0 if this.active else behind + self.size
            if this.active and policy.first(entropies[:, :1].tolist(), confidences[:, :1].tolist()):
                this.drafted = 1
                while this.drafted < CEILING and policy.more(
                    entropies[:, : this.drafted].tolist(), confidences[:, : this.drafted].tolist()
                ):
                    this.drafted += 1
            survived = (generator.random((self.size, CEILING)) < confidences).cumprod(1)
            this.accepted = survived[:, : this.drafted].sum(1).tolist()
            noise = np.exp(generator.normal(0.0, 0.05, 3))
            this.draft_ms, this.verify_ms = (
                self.draft_ms(this.drafted) * noise[0],
                self.verify_ms(this.drafted) * noise[1],
            )
            this.extend_ms = self.extend_ms(this.drafted) * noise[2] if this.active else 0.0
            ms += this.draft_ms + this.verify_ms + this.extend_ms
            tokens += this.emitted / self.size
            policy.observe(this)
        return 1e3 * tokens / ms


def ours() -> ThroughputBatchPolicy:
    return ThroughputBatchPolicy(Controller.load(), 0, Costs.from_sizes(3.1e9, 1.0e9), CEILING)


@pytest.mark.parametrize("world", [{}, {"sure": 0.6, "unsure": 0.2, "row_ms": 40.0}], ids=["pays", "does not"])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_no_slower_than_the_best_fixed_gamma_or_plain(size: int, world: dict[str, float]) -> None:
    busy = Busy(size, **world)
    best = max(range(CEILING + 1), key=busy.fixed)
    assert (best == 0) == bool(world), "the two cases are to differ"
    policy = ours()
    busy.serve(policy, 100, seed=1)
    assert busy.serve(policy, 400) >= 0.96 * busy.fixed(best)


def test_what_one_size_taught_is_used_at_the_next() -> None:
    """After 200 rounds alone, the first 30 with seven others are no slower than the best fixed γ for eight."""
    policy = ours()
    Busy(1).serve(policy, 200)
    busy = Busy(8)
    assert busy.serve(policy, 30) >= 0.95 * max(busy.fixed(gamma) for gamma in range(CEILING + 1))


def rounds(policy: ThroughputBatchPolicy, size: int, accept: float, draft_ms: float, count: int) -> list[int]:
    """γ of ``count`` rounds in which each draft token costs ``draft_ms``, a verify 20 ms, and confidence is right."""
    generator = np.random.default_rng(0)
    taken = []
    for _ in range(count):
        drafted = 0
        outcome = BatchRound(size, verify_ms=20.0, active=policy.begin(size, 0, [None] * size) > 0)
        if outcome.active:
            signals = [[2 * (1 - accept)]] * size, [[accept]] * size
            if policy.first(*signals):
                drafted = 1
                while drafted < 8 and policy.more([s * drafted for s in signals[0]], [s * drafted for s in signals[1]]):
                    drafted += 1
            outcome.draft_ms, outcome.extend_ms = draft_ms * max(0, drafted - 1), draft_ms
        draws = generator.random((size, 8)) < accept
        outcome.accepted = [int(row[:drafted].cumprod().sum()) for row in draws]
        outcome.drafted = drafted
        policy.observe(outcome)
        taken.append(drafted)
    return taken


class TestThroughputBatchPolicy:
    def policy(self) -> ThroughputBatchPolicy:
        return ThroughputBatchPolicy(Controller.load(), 0, Costs.linear(4.0, 20.0))

    def test_drafts_far_where_that_pays(self) -> None:
        taken = rounds(self.policy(), 2, accept=0.95, draft_ms=1.0, count=60)
        assert sum(taken[20:]) / 40 > 4

    def test_rests_where_it_does_not(self) -> None:
        taken = rounds(self.policy(), 2, accept=0.3, draft_ms=15.0, count=100)
        assert taken[EVIDENCE + 2 :].count(0) > 0.85 * len(taken[EVIDENCE + 2 :])
        assert any(taken[EVIDENCE + 2 :]), "it must look again now and then"

    def test_comes_back(self) -> None:
        policy = self.policy()
        rounds(policy, 2, accept=0.3, draft_ms=15.0, count=60)
        taken = rounds(policy, 2, accept=0.97, draft_ms=1.0, count=200)
        assert sum(taken[-40:]) / 40 > 3

    def test_batch_sizes_are_judged_apart(self) -> None:
        policy = self.policy()
        rounds(policy, 8, accept=0.3, draft_ms=15.0, count=30)
        rounds(policy, 1, accept=0.95, draft_ms=1.0, count=30)
        assert not policy.warm(8) and policy.warm(1) and policy.pace(9) is policy.pace(16)

    def test_a_long_way_back_must_be_worth_it(self) -> None:
        policy = self.policy()
        rounds(policy, 1, accept=0.6, draft_ms=6.0, count=60)
        assert policy.begin(1, 100_000, [None]) == 0

    def test_a_prompt_is_read_where_the_output_pays_for_it(self) -> None:
        policy = self.policy()
        rounds(policy, 2, accept=0.8, draft_ms=2.0, count=60)
        policy.read(100, 100.0)
        assert policy.warm(2, 1, 100)
        for _ in range(30):
            policy.ended(4)
        assert policy.length < 12 and not policy.warm(2, 1, 100)

    def test_nan_keeps_to_the_fallback_and_is_counted(self) -> None:
        policy = self.policy()
        policy.begin(2, 0, [None, None])
        nan = float("nan")
        going = [policy.more([[1.0] * i, [nan] * i], [[0.5] * i, [nan] * i]) for i in range(1, 7)]
        assert going == [True, True, True, False, False, False] and policy.fallbacks == 6


def test_the_papers_rule_for_a_batch() -> None:
    policy = TokensBatchPolicy(Controller.load(), 0, max_gamma=6)
    assert policy.begin(2, 0, [None, None]) == 4
    assert policy.begin(2, 0, [(0.1, 0.95, 0.2, 0.9), None]) in (2, 4, 6)
    assert policy.begin(1, 0, [(math.nan,) * 4]) == 4 and policy.fallbacks == 1
    assert FixedBatchPolicy(3).begin(9, 0, []) == 3

"""The throughput policy's single decisions, computed by hand; what it learns of siblings; when the draft reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from simulation import Oracle, World, draft, level, linear, play

from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs
from speckv.controller.policies.correction import CALM, DOUBT
from speckv.controller.policies.pace import MEMORY
from speckv.controller.policies.siblings import SiblingPlan
from speckv.controller.policies.throughput import ThroughputPolicy
from speckv.controller.policy import Request, Round


class Says(Oracle):
    """Gives the same answer whatever is asked."""

    def survival(self, prefixes: np.ndarray[Any, Any], further: Sequence[int]) -> np.ndarray[Any, Any]:
        return np.full((len(prefixes), len(further)), self.acceptance, dtype=np.float32)


COSTS = Costs.linear(50, 100, 10)
"""ρ is 1 / 100 at first; t(γ) = 100 + 60 γ."""


def begun(survival: float, costs: Costs = COSTS, size: int = 1, room: int = 100, **more: Any) -> tuple[Any, Round, int]:
    policy = ThroughputPolicy(Says(survival), 0, CostModel(costs), 8, siblings=False, **more)
    this = Round([Request() for _ in range(size)])
    return policy, this, policy.begin(this, room)


def after(survival: float, drafted: int, **more: Any) -> int:
    """What is decided once so many levels are there."""
    policy, this, limit = begun(1.0, **more)
    for _ in range(drafted):
        policy.controller = Says(survival if len(this.levels) == drafted - 1 else 1.0)
        this.levels.append(level([0.5] * this.size))
        decided = policy.deepen(this)
    assert decided <= limit
    return decided


class TestOneRequest:
    def test_drafting_begins_where_seeing_a_first_token_pays(self) -> None:
        """Verifying it comes to 60 ms, 0.6 tokens; seeing it to 50, and what follows is worth as much as it again."""
        assert begun(0.499)[2] == 0 and begun(0.501)[2] == 8

    @pytest.mark.parametrize(("survival", "decided"), [(0.099, 0), (0.101, 1), (0.599, 1), (0.601, 8)])
    def test_after_the_first_level(self, survival: float, decided: int) -> None:
        """Its row is 0.1 tokens; each further level 0.6."""
        assert after(survival, 1) == decided

    def test_the_newest_may_be_left_out_and_none_before(self) -> None:
        assert [after(0.0, drafted) for drafted in (1, 2, 5)] == [0, 1, 4]

    def test_the_limit(self) -> None:
        assert after(1.0, 8) == 8 and after(1.0, 2, room=2) == 2 and after(0.05, 2, room=2) == 1

    def test_looking_ahead_crosses_a_step_of_the_verify(self) -> None:
        """100 ms for up to three rows, 200 for up to six, 400 beyond; a level takes 10.

        A third level costs 110 ms, more than it can bring; three more cost 130 and bring 3 S.
        """
        steps = Costs({1: 10.0}, {1: 100.0, 3: 100.0, 4: 200.0, 6: 200.0, 7: 400.0, 20: 400.0})
        assert after(0.44, 2, costs=steps) == 8 and after(0.43, 2, costs=steps) == 2
        assert after(0.59, 2, costs=steps, room=4) == 2 and after(0.61, 2, costs=steps, room=4) == 4

    def test_before_drafting_it_decides_once(self) -> None:
        policy = ThroughputPolicy(Oracle(0.8), 0, CostModel(COSTS), 8, per_level=False, siblings=False)
        this = draft(policy, Round([Request()]), 100, lambda _: level(0.5))
        # After the first level, whose forward is paid for: 0.8 − 0.1, then 0.8ʲ − 0.6 while that is above 0.
        assert (len(this.levels), this.gamma) == (2, 2)

    def test_a_batch_is_a_sum(self) -> None:
        """Four requests, ρ = 4 / 130: a further level takes 50 + 40 ms, so 2.77 of four tokens, 0.69 of each."""
        for survival, decided in ((0.68, 1), (0.70, 8)):
            assert after(survival, 1, size=4, costs=Costs({1: 50.0}, {1: 100.0, 2: 110.0})) == decided


def finished(this: Round, accepted: int, ms: tuple[float, float]) -> Round:
    this.gamma, this.accepted, this.emitted = len(this.levels), [accepted], accepted + 1
    this.ranks = [4 if accepted < this.gamma else 0]
    this.draft_ms, this.verify_ms = ms
    return this


def test_what_was_predicted_is_corrected_by_what_came() -> None:
    policy, this, _ = begun(0.8)
    for _ in range(2):
        this.levels.append(level(0.5))
        policy.deepen(this)
    policy.observe(finished(this, 1, (100.0, 120.0)))
    # 0.8 was said of each of two levels; one came.
    assert policy._correction.seen.value == pytest.approx((CALM * DOUBT + 1) / (CALM * DOUBT + 1.6))


class Exact(Oracle):
    """Knows of every drafted token how likely it is, and of later ones the mean."""

    def survival(self, prefixes: np.ndarray[Any, Any], further: Sequence[int]) -> np.ndarray[Any, Any]:
        return np.asarray(
            np.exp(prefixes[:, 1:2].astype(float)) * self.acceptance ** np.array(further), dtype=np.float32
        )


def test_a_controller_that_is_right_is_not_corrected() -> None:
    """Six tokens in ten hold with 0.98, the others with 0.3, and rows are so dear that many levels are left out."""
    draws = np.random.default_rng(0)
    policy = ThroughputPolicy(Exact(0.6 * 0.98 + 0.4 * 0.3), 0, CostModel(Costs.linear(5, 100, 25)), siblings=False)
    found = []
    for _ in range(1500):
        chances = np.where(draws.random(25) < 0.6, 0.98, 0.3)
        this = draft(policy, Round([Request()]), 20, lambda place, of=chances: level(1 - of[place], of[place]))
        accepted = int(np.cumprod(draws.random(this.gamma) < chances[: this.gamma]).sum())
        this.accepted, this.ranks = [accepted], [4 if accepted < this.gamma else 0]
        this.emitted, this.draft_ms = accepted + 1, 5.0 * len(this.levels)
        this.verify_ms = 100.0 + 25.0 * this.verified
        policy.observe(this)
        found.append((policy._correction.seen.value, policy._correction.further.value))
    assert np.mean(found[500:], axis=0) == pytest.approx([1.0, 1.0], abs=0.1)


def test_a_speed_that_was_reached_raises_the_bar() -> None:
    costs = Costs.linear(10, 100, 0)
    policy, this, _ = begun(0.8, costs)
    this.levels += [level(0.5)] * 5
    policy.observe(finished(this, 5, (50.0, 100.0)))
    # As after 100 ms of plain decoding, which count a little less by now.
    assert policy._paces[1].rate(1, 100.0) == pytest.approx((MEMORY + 6) / (100 * MEMORY + 150))


class TestSiblings:
    def learnt(self, right: tuple[float, ...], told: tuple[float, ...]) -> SiblingPlan:
        plan = SiblingPlan(8, used=True)
        world = World(0.6, 1.0, linear(100.0), right, size=4)
        draws = np.random.default_rng(0)
        for _ in range(600):
            this = Round([Request() for _ in range(4)], levels=[level([0.5] * 4, (0.6, *told))] * 3, gamma=3)
            held = np.cumprod(draws.random((4, 3)) < world.acceptance, axis=1).sum(axis=1)
            this.accepted = held.tolist()
            drawn = draws.choice(4, 4, p=[*right, 1 - sum(right)]) + 1
            this.ranks = np.where(held < 3, drawn, 0).tolist()
            plan.learn(this, plan.values(np.stack(this.levels, axis=1)))
        return plan

    def test_how_often_they_are_right_corrects_what_the_draft_says(self) -> None:
        """It says 0.1, 0.1 and 0.05 where 0.4 · (0.5, 0.25, 0.05) is true."""
        plan = self.learnt((0.5, 0.25, 0.05), (0.1, 0.1, 0.05))
        signals = level([0.5], (0.6, 0.1, 0.1, 0.05))[:, None].repeat(2, axis=1)
        values = plan.values(signals)
        expected = np.outer((1.0, 0.6), (0.2, 0.1, 0.02))
        assert values == pytest.approx(expected[None], rel=0.25)

    def test_what_so_many_mend_is_learnt(self) -> None:
        plan = self.learnt((0.5, 0.25, 0.05), (0.2, 0.1, 0.02))
        accepted, mended = plan.basis
        assert (accepted == 1).all()
        assert mended[0] == 0.0 and mended[-1] == pytest.approx(0.8, abs=0.1)  # all of three at each level
        assert (np.diff(mended) >= 0).all() and mended[4] == pytest.approx(0.5, abs=0.12)  # the best of each level

    def test_a_chain_has_none(self) -> None:
        plan = SiblingPlan(8, used=False)
        assert plan.counts.tolist() == [[0]] * 9
        assert plan.basis.tolist() == [[1.0], [0.0]]


class TestReading:
    """The draft's reading of what is new to it, a prompt say."""

    def policy(self, acceptance: float, draft_ms: float) -> ThroughputPolicy:
        policy = ThroughputPolicy(Oracle(acceptance), 0, CostModel(Costs.linear(draft_ms, 100)), 8)
        play(policy, World(acceptance, draft_ms, linear(100.0), size=2), 60)
        return policy

    def test_a_prompt_is_read_where_the_output_pays_for_it(self) -> None:
        policy = self.policy(0.8, 10.0)
        policy.caught_up(100, 500.0)
        assert policy.prefill(2, 1, 100)
        for _ in range(60):
            policy.ended(4)
        assert not policy.prefill(2, 1, 100)

    def test_none_is_read_where_drafting_does_not_pay(self) -> None:
        assert not self.policy(0.1, 60.0).prefill(2, 1, 100)

    def test_a_long_way_back_must_be_worth_it(self) -> None:
        policy = self.policy(0.7, 20.0)
        requests = [Request(), Request()]
        assert policy.begin(Round(requests), 100) > 0
        requests[0].stale = 1_000_000
        assert policy.begin(Round(requests), 100) == 0

    def test_much_is_not_read_before_a_plain_round_was_timed(self) -> None:
        for tokens, first in ((30, True), (500, False)):
            policy = ThroughputPolicy(Oracle(0.8), 0, CostModel(Costs.linear(10, 100)), 8)
            policy.caught_up(1000, 500.0)
            requests = [Request(stale=tokens), Request(stale=tokens)]
            prompts = draft(policy, Round(requests, verify_prefill=True), 0, lambda _: level(1.0, 0.2))
            finished(prompts, 0, (0.0, 900.0))
            policy.observe(prompts)  # of the prompts, which says nothing about a plain round
            plain = Round(requests)
            assert (policy.begin(plain, 40) > 0) == first
            if first:
                continue
            plain.resting = True
            finished(plain, 0, (0.0, 100.0))
            policy.observe(plain)
            assert policy.begin(Round(requests), 40) > 0

    def test_only_to_try_it_is_rare(self) -> None:
        """Texts of 40 tokens, whose prompts take the draft 600 ms each, which is nearly never worth trying."""
        policy = ThroughputPolicy(Oracle(0.05), 0, CostModel(Costs.linear(50, 100)), 8, siblings=False)
        policy.caught_up(64, 600.0)
        spent = reading = before = 0.0
        for number in range(200 * 40):
            if number % 40 == 0:
                request = Request(stale=64)
            this = draft(policy, Round([request]), 40, lambda _: level(1.0, 0.2))
            finished(this, 0, (50.0 * len(this.levels), 100.0))
            if this.levels:
                before = before or spent
                reading += 600.0 if request.stale > 32 else 0.0
                request.stale = 0
            request.stale += 1
            spent += 100.0 + 50.0 * len(this.levels)
            policy.observe(this)
            this.remember()
        assert 0 < reading / spent < 0.021 and before >= 600 / 0.021

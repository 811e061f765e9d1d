"""What all policies keep to: bounds, nothing of the future, broken signals; and the fixed and the paper's decisions."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from futures import Future, decisions, sees_the_future
from hypothesis import given
from hypothesis import strategies as st
from simulation import Oracle, World, draft, level, linear, play

from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs
from speckv.controller.errors import SpecKVError
from speckv.controller.policies import make_policy
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policies.throughput import ThroughputPolicy
from speckv.controller.policies.tokens import TokensPolicy
from speckv.controller.policy import Policy, Request, Round

MAX_GAMMA = 6


class Believes(Oracle):
    """A controller that goes by what it is shown: the draft's own confidence, and what was accepted before."""

    def survival(self, prefixes: np.ndarray[Any, Any], further: Sequence[int]) -> np.ndarray[Any, Any]:
        each = np.exp(prefixes[:, 1:2]) * np.power(prefixes[:, 3:4], np.array(further))
        return np.asarray(each * (1 - 0.01 * prefixes[:, 2:3]), dtype=np.float32)

    def acceptance_rates(self, signals: Sequence[float], level: int, gammas: Sequence[int]) -> np.ndarray[Any, Any]:
        return np.array([signals[1] ** (gamma * signals[2]) for gamma in gammas])


def throughput(oracle: Oracle, **changes: Any) -> ThroughputPolicy:
    settings: dict[str, Any] = {"max_gamma": MAX_GAMMA, "siblings": True, **changes}
    return ThroughputPolicy(oracle, 1, CostModel(Costs.linear(30, 100)), **settings)


MAKERS: dict[str, Callable[[Oracle], Policy]] = {
    "fixed": lambda _: FixedPolicy(MAX_GAMMA),
    "tokens": lambda oracle: TokensPolicy(oracle, 1, MAX_GAMMA),
    "tokens of 1": lambda oracle: TokensPolicy(oracle, 1, 1),
    "per level": throughput,
    "per level, chain": lambda oracle: throughput(oracle, siblings=False),
    "per step": lambda oracle: throughput(oracle, per_level=False),
    "per step, chain": lambda oracle: throughput(oracle, per_level=False, siblings=False),
    "per level of 1": lambda oracle: throughput(oracle, max_gamma=1),
}
EACH = pytest.mark.parametrize("name", MAKERS)
SIGNAL = st.one_of(st.floats(0, 12), st.sampled_from([math.nan, math.inf, -math.inf]))


@EACH
@given(
    rounds=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), SIGNAL, st.integers(0, 6)), max_size=12),
    acceptance=st.floats(0, 1),
    size=st.sampled_from([1, 3]),
)
def test_within_its_bounds_whatever_comes(
    name: str, rounds: list[tuple[int, int, float, int]], acceptance: float, size: int
) -> None:
    """``draft`` holds it to the contract; here signals break at any level."""
    policy = MAKERS[name](Oracle(acceptance))
    most = 1 if name.endswith("of 1") else MAX_GAMMA
    requests = [Request() for _ in range(size)]
    for room, accepted, signal, broken in rounds:

        def levels(place: int, signal: float = signal, broken: int = broken) -> Any:
            return level([signal if place == broken else 0.5] * size, signal if place == broken else 0.6)

        this = draft(policy, Round(requests), room, levels)
        assert 0 <= this.gamma <= min(most, room)
        this.accepted = [min(accepted, this.gamma)] * size
        this.ranks = [2 if this.accepted[0] < this.gamma else 0] * size
        this.emitted = sum(this.accepted) + size + sum(this.sibling_hits)
        this.draft_ms, this.verify_ms = 30.0 * len(this.levels), 100.0
        policy.observe(this)
        this.remember()


@EACH
@given(seed=st.integers(0, 10_000), number=st.integers(0, 12), seen=st.integers(0, 7), size=st.sampled_from([1, 3]))
def test_none_sees_what_it_cannot_know(name: str, seed: int, number: int, seen: int, size: int) -> None:
    assert not sees_the_future(lambda _: MAKERS[name](Believes(0.8)), seed, number, seen, size)


class Peeker(FixedPolicy):
    """Drafts what will be accepted, or as long as the next confidence is high."""

    per_level = asks = True

    def __init__(self, future: Future, matches: bool) -> None:
        super().__init__(MAX_GAMMA)
        self.future, self.matches, self.number = future, matches, 0

    def begin(self, this: Round, room: int) -> int:
        return int(self.future.matches[self.number, 0]) if self.matches else room

    def deepen(self, this: Round) -> int:
        made = len(this.levels)
        return made + (self.matches or self.future.signals[self.number, made, 0, 1] > 0.7)

    def observe(self, this: Round) -> None:
        self.number += 1


@pytest.mark.parametrize("matches", [True, False])
def test_one_that_does_is_found_out(matches: bool) -> None:
    seen = [sees_the_future(lambda future: Peeker(future, matches), seed, 3, 1) for seed in range(30)]
    assert any(seen)


def test_what_decides_differs_where_futures_do() -> None:
    """Else the tests above would say nothing: signals, and outcomes alone, change what these policies do."""
    one = Future.random(1, 30)
    for name, outcomes_too in (("tokens", False), ("per level", True), ("per step", True)):
        for other in (Future.random(2, 30), Future(one.signals, 0 * one.matches, one.ranks))[: 1 + outcomes_too]:
            played = [decisions(MAKERS[name](Believes(0.8)), future, 30) for future in (one, other)]
            assert played[0] != played[1]


@EACH
def test_a_copy_learns_for_itself(name: str) -> None:
    world = World(0.8, 30.0, linear(100.0, 3.0), (0.5, 0.2))
    policy, untouched = MAKERS[name](Oracle(0.8)), MAKERS[name](Oracle(0.8))
    for one in (policy, untouched):
        play(one, world, 30, seed=1)
    play(copy.deepcopy(policy), World(0.1, 300.0, linear(900.0)), 60, seed=2)
    played, expected = play(policy, world, 30, seed=3), play(untouched, world, 30, seed=3)
    assert [(this.gamma, this.verified) for this in played] == [(this.gamma, this.verified) for this in expected]


def test_fixed() -> None:
    assert [FixedPolicy(gamma).begin(Round([Request()]), 5) for gamma in (0, 4, 5, 9)] == [0, 4, 5, 5]
    assert not FixedPolicy(4).asks and FixedPolicy(4).prefill(1, 1, 9) and not FixedPolicy(0).prefill(1, 1, 9)
    with pytest.raises(SpecKVError, match="gamma -1: must be 0 or more"):
        FixedPolicy(-1)


class Rates(Oracle):
    """Says these rates of γ 2, 4, 6, 8, by the largest entropy it is shown."""

    def __init__(self, rates: dict[float, tuple[float, ...]]) -> None:
        super().__init__(0.5)
        self.rates = rates
        self.asked: list[tuple[tuple[float, ...], int, tuple[int, ...]]] = []

    def acceptance_rates(self, signals: Sequence[float], level: int, gammas: Sequence[int]) -> np.ndarray[Any, Any]:
        self.asked.append((tuple(signals), level, tuple(gammas)))
        return np.array(self.rates[signals[2]][: len(gammas)])


def known(*entropies: float) -> Round:
    """A round whose requests' last one had a level of this entropy."""
    return Round([Request(last=level(entropy, 0.5)) for entropy in entropies])


def test_the_papers_rule_by_hand() -> None:
    rates = Rates({1.0: (0.9, 0.8, 0.5, 0.3), 2.0: (0.9, 0.8, 0.7, 0.6), 3.0: (0.9, 0.1, 0.1, 0.1)})
    policy = TokensPolicy(rates, 2)
    assert policy.begin(known(1.0), 100) == 4  # 1 + γ · r(γ) is 2.8, 4.2, 4.0, 3.4
    assert policy.begin(known(2.0), 100) == 8  # 2.8, 4.2, 5.2, 5.8
    assert policy.begin(known(3.0), 100) == 2
    assert policy.begin(known(2.0), 3) == 3
    assert policy.begin(known(2.0, 3.0), 100) == 8  # together 3.6, 3.6, 4.8, 5.6 beyond the target's own
    assert policy.begin(known(1.0, 1.0, 2.0), 100) == 6  # 5.4, 9.6, 10.2, 9.6
    assert TokensPolicy(rates, 2, 7).begin(known(2.0), 100) == 6
    assert TokensPolicy(rates, 2, 1).gammas == (1,)


def test_the_paper_keeps_to_the_ceiling_that_a_user_sets() -> None:
    rates = Rates({2.0: (0.9, 0.8, 0.7, 0.6)})
    for most, chosen in ((4, 4), (20, 8), (None, 8)):
        made = make_policy(rates, "tokens", "step", 2, CostModel(Costs.linear(10, 100)), max_gamma=most)
        assert made.begin(known(2.0), 100) == chosen


def test_the_paper_asks_with_the_last_rounds_signals_and_first_falls_back() -> None:
    rates = Rates({3.0: (0.1, 0.1, 0.1, 0.1)})
    policy = TokensPolicy(rates, 2, fallback_gamma=3)
    requests = [Request()]
    this = Round(requests)
    assert policy.begin(this, 100) == 3 and policy.begin(this, 2) == 2 and not rates.asked
    this.levels, this.gamma, this.accepted, this.ranks = [level(1.0, 0.5), level(3.0, 0.3)], 2, [0], [1]
    policy.observe(this)
    this.remember()
    Round(requests, accepted=[0], ranks=[0]).remember()  # it drafted nothing, so it has no signals
    policy.begin(Round([*requests, Request()]), 100)
    ((signals, compression, gammas),) = rates.asked  # of a new request nothing is known
    assert signals == pytest.approx((2.0, 0.4, 3.0, 0.3)) and (compression, gammas) == (2, (2, 4, 6, 8))


@pytest.mark.parametrize("broken", [math.nan, math.inf], ids=str)
class TestNotFinite:
    @pytest.mark.parametrize("per_level", [True, False])
    @pytest.mark.parametrize(("at", "expected"), [(0, 3), (1, 3), (4, 5)])
    def test_throughput(
        self, per_level: bool, at: int, expected: int, broken: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        """γ is the fallback's or as many as there are; no siblings; counted once a round, logged once."""
        policy = throughput(Oracle(1.0), per_level=per_level, fallback_gamma=3)
        policy.cost.observe(Round([Request()], verify_ms=1e5))  # so that drafting is free
        with caplog.at_level(logging.WARNING, logger="speckv"):
            for count in (1, 2, 3):

                def levels(place: int) -> Any:
                    found = level([0.5, 0.5], (0.6, 0.3))
                    found[1, 1 + count] = broken if place == at else 0.0  # noqa: B023 - used at once
                    return found

                this = draft(policy, Round([Request(), Request()]), 100, levels)
                assert this.gamma == (expected if per_level or not at else MAX_GAMMA)
                assert this.siblings is None and policy.fallbacks == count
                this.accepted, this.ranks, this.emitted = [0, 0], [1, 1], 2
                policy.observe(this)
            this = draft(policy, Round([Request()]), 100, lambda _: level(0.5, (0.6, 0.3)))
            assert this.gamma == MAX_GAMMA and this.siblings is not None and policy.fallbacks == 3
        assert len(caplog.records) == 1 and "not finite" in caplog.text

    def test_tokens(self, broken: float) -> None:
        policy = TokensPolicy(Oracle(1.0), 0, fallback_gamma=3)
        assert policy.begin(known(0.5, broken), 100) == 3
        assert policy.begin(known(0.5, 0.5), 100) == 8 and policy.fallbacks == 1


def test_make_policy() -> None:
    cost, oracle = CostModel(Costs.linear(1, 1)), Oracle(0.5)
    fixed = make_policy(None, "throughput", "token", 0, cost, gamma=3)
    assert isinstance(fixed, FixedPolicy) and fixed.gamma == 3
    token = make_policy(oracle, "throughput", "token", 2, cost, max_gamma=5)
    assert isinstance(token, ThroughputPolicy) and token.per_level
    assert (token.max_gamma, token.compression, token.cost) == (5, 2, cost)
    free = World(0.5, 1.0, linear(100.0), (0.9,))
    for siblings in (True, False):
        made = make_policy(oracle, "throughput", "token", 0, CostModel(Costs.linear(1, 100, 0)), siblings=siblings)
        assert any(this.offered_siblings for this in play(made, free, 30)) == siblings
    assert not make_policy(oracle, "throughput", "step", 0, cost).per_level
    assert isinstance(make_policy(oracle, "tokens", "token", 0, cost), TokensPolicy)
    usual = {"controller": oracle, "objective": "throughput", "mode": "token", "compression": 0, "cost": cost}
    for changes, reason in (
        ({"objective": "speed"}, "objective speed: must be one of throughput, tokens"),
        ({"mode": "word"}, "mode word: must be one of token, step"),
        ({"max_gamma": 0}, "max_gamma 0: must be within 1 … 20"),
        ({"controller": None}, "a controller is needed unless gamma is fixed"),
        ({"gamma": -2}, "gamma -2: must be 0 or more"),
    ):
        with pytest.raises(SpecKVError) as refusal:
            make_policy(**(usual | changes))  # type: ignore[arg-type]
        assert str(refusal.value) == reason

"""The policies' single decisions: bounds, arithmetic by hand, broken signals, and what they may not know."""

from __future__ import annotations

import copy
import logging
import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import Oracle, World, drafts, linear, play

from speckv.controller.cost import CostModel, Costs
from speckv.controller.decision import best_for_throughput, best_for_tokens, expected_tokens
from speckv.controller.errors import SpecKVError
from speckv.controller.features import RecentAcceptance, prefix, summarize
from speckv.controller.policies import make_policy
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policies.throughput import Correction, ThroughputPolicy
from speckv.controller.policies.tokens import TokensPolicy
from speckv.controller.policy import Policy, Round

MAX_GAMMA = 6
MAKERS: dict[str, Callable[[Oracle], Policy]] = {
    "fixed": lambda _: FixedPolicy(MAX_GAMMA),
    "tokens": lambda oracle: TokensPolicy(oracle, 1, gammas=(2, MAX_GAMMA)),
    "tokens of 2": lambda oracle: TokensPolicy(oracle, 1, gammas=(2,)),
    "throughput per token": lambda oracle: ThroughputPolicy(oracle, 1, CostModel(Costs.linear(30, 100)), MAX_GAMMA),
    "throughput per step": lambda oracle: ThroughputPolicy(
        oracle, 1, CostModel(Costs.linear(30, 100)), MAX_GAMMA, per_token=False
    ),
    "throughput of 2": lambda oracle: ThroughputPolicy(oracle, 1, CostModel(Costs.linear(30, 100)), max_gamma=2),
}
ANY_SIGNAL = st.one_of(st.floats(0, 12), st.sampled_from([math.nan, math.inf, -math.inf]))


class Says(Oracle):
    """A controller that gives the same answer whatever the signals."""

    def __init__(self, survival: float, rates: Sequence[float] = ()) -> None:
        super().__init__(survival)
        self.rates = rates

    def survival(self, signals: Sequence[float], level: int, drafted: int) -> float:
        super().survival(signals, level, drafted)
        return self.acceptance

    def acceptance_rates(self, signals: Sequence[float], level: int, gammas: Sequence[int]) -> np.ndarray:
        return np.array(self.rates, dtype=np.float32) if self.rates else np.full(len(gammas), self.acceptance)


def after_a_round(policy: Policy, signal: float = 0.5) -> Policy:
    """``policy`` having seen one round of one token, with timings that are its guesses."""
    cost = policy.cost if isinstance(policy, ThroughputPolicy) else CostModel(Costs.linear(1, 1))
    policy.observe(Round(0, [signal], [signal], 1, 2, draft_ms=cost.draft_ms, verify_ms=cost.verify_ms(2)))
    return policy


@pytest.mark.parametrize("name", MAKERS)
@given(
    rounds=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), ANY_SIGNAL, ANY_SIGNAL), max_size=12),
    acceptance=st.floats(0, 1),
)
def test_gamma_is_within_its_bounds_whatever_comes(
    name: str, rounds: list[tuple[int, int, float, float]], acceptance: float
) -> None:
    policy = MAKERS[name](Oracle(acceptance))
    most = 2 if name.endswith("of 2") else MAX_GAMMA
    for room, accepted, entropy, confidence in rounds:
        gamma = copy.deepcopy(policy).begin(room)
        assert type(gamma) is int and 0 <= gamma <= min(most, room)
        this = drafts(policy, room, lambda _, signals=(entropy, confidence): signals)
        this.accepted = min(accepted, this.drafted)
        this.emitted, this.draft_ms, this.verify_ms = this.accepted + 1, 30.0 * this.drafted, 100.0
        policy.observe(this)


def test_fixed() -> None:
    assert [FixedPolicy(gamma).begin(room=5) for gamma in (0, 4, 5, 9)] == [0, 4, 5, 5]
    assert not FixedPolicy(4).per_token and FixedPolicy(4).more([9.0], [0.0])
    with pytest.raises(SpecKVError, match="gamma -1: must be 0 or more"):
        FixedPolicy(-1)


def test_decisions_by_hand() -> None:
    gammas = np.array([0.0, 2.0, 4.0])
    rates = np.array([[0.0, 0.9, 0.7], [0.0, 0.2, 0.1]])
    assert expected_tokens(rates, gammas).tolist() == [[1.0, 2.8, 3.8], [1.0, 1.4, 1.4]]
    assert best_for_tokens(rates, gammas).tolist() == [2, 1]  # the first of equals
    # at ρ = 0.01: 1 - 1, 2.8 - 1.5, 3.8 - 3 and 1 - 1, 1.4 - 1.5, 1.4 - 3
    assert best_for_throughput(rates, gammas, np.array([100, 150, 300]), 0.01).tolist() == [1, 0]


def test_tokens_takes_the_most_expected_tokens() -> None:
    for rates, gamma in (
        ((0.9, 0.8, 0.5, 0.3), 4),  # 2.8, 4.2, 4.0, 3.4
        ((0.9, 0.8, 0.7, 0.6), 8),  # 2.8, 4.2, 5.2, 5.8
        ((0.9, 0.1, 0.1, 0.1), 2),
    ):
        policy = after_a_round(TokensPolicy(Says(1.0, rates), level=2))
        assert policy.begin(room=100) == gamma
        assert policy.begin(room=3) == min(3, gamma)


def test_tokens_asks_with_the_last_rounds_signals_and_first_falls_back() -> None:
    controller = Oracle(0.9)
    seen = []
    controller.acceptance_rates = lambda *asked: seen.append(asked) or np.zeros(4)  # type: ignore[method-assign]
    policy = TokensPolicy(controller, level=2, fallback_gamma=3)
    assert policy.begin(room=100) == 3 and not seen
    policy.observe(Round(0, [1.0, 3.0], [0.5, 0.3]))
    policy.observe(Round(0))  # drafted nothing, so it has no signals
    policy.begin(room=100)
    assert seen == [((2.0, 0.4, 3.0, 0.3), 2, (2, 4, 6, 8))]


@pytest.mark.parametrize("broken", [(math.nan, 0.5), (0.5, math.nan), (math.inf, 0.5)], ids=str)
@pytest.mark.parametrize("per_token", [True, False])
def test_broken_signals_fall_back_are_counted_and_logged_once(
    broken: tuple[float, float], per_token: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for policy in (
        TokensPolicy(Says(1.0), 0, fallback_gamma=3),
        ThroughputPolicy(Says(1.0), 0, CostModel(Costs.linear(0, 100)), 8, per_token=per_token, fallback_gamma=3),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="speckv"):
            policy.observe(Round(0, [0.5, broken[0]], [0.5, broken[1]], 1, 2))
            for count in (1, 2):
                policy.begin(room=100)
                if policy.per_token:  # it is this round's signals that decide, not the last one's
                    assert not policy.more([broken[0]] * 3, [broken[1]] * 3)
                assert policy.fallbacks == count
            if policy.per_token:
                told = [policy.more([broken[0]] * drafted, [broken[1]] * drafted) for drafted in range(1, 5)]
                assert told == [True, True, False, False]
            else:
                assert policy.begin(room=100) == 3
            after_a_round(policy)
            assert policy.begin(room=100) == 8
        assert len(caplog.records) == 1 and "not finite" in caplog.text


def drafting_on(survival: float, drafted: int = 1, room: int = 100) -> bool:
    """At ρ = 1 / 100 per ms, T(γ) = 100 + 60 γ, c = 0.8 and k = 1."""
    policy = ThroughputPolicy(Says(survival), 0, CostModel(Costs.linear(50, 100, 10)), max_gamma=8)
    policy.begin(room)
    return policy.more([0.5] * drafted, [0.5] * drafted)


def test_throughput_draws_the_line_where_the_arithmetic_does() -> None:
    assert drafting_on(0.601) and not drafting_on(0.599)  # S ≥ ρ · 60
    assert not drafting_on(1.0, drafted=8)  # there is no ninth
    assert not drafting_on(1.0, drafted=2, room=2)


def test_the_running_rates_move_the_line() -> None:
    policy = ThroughputPolicy(Says(0.8), 0, CostModel(Costs.linear(50, 100, 10)))
    policy.begin(room=100)
    policy.more([0.5], [0.5])
    policy.observe(Round(0, [0.5] * 2, [0.5] * 2, accepted=1, emitted=2, draft_ms=100, verify_ms=120))
    assert policy.rate == pytest.approx(max(2 / 220, 1 / 100))
    assert policy.correction(0) == pytest.approx((0.99 * 16 + 1) / (0.99 * 16 + 0.8))  # 0.8 promised, and it came
    assert policy.correction(1) == pytest.approx((0.99 * 16 + 0) / (0.99 * 16 + 0.8))  # 0.8 promised, none came
    cheap = ThroughputPolicy(Says(0.8), 0, CostModel(Costs.linear(10, 100, 0)))
    cheap.begin(room=100)
    cheap.observe(Round(0, [0.5] * 5, [0.5] * 5, accepted=5, emitted=6, draft_ms=50, verify_ms=100))
    assert cheap.rate == pytest.approx(6 / 150)


@pytest.mark.parametrize("per_token", [True, False])
def test_what_was_promised_and_came_is_counted_alike_in_both_modes(per_token: bool) -> None:
    policy = ThroughputPolicy(Oracle(0.5), 0, CostModel(Costs.linear(0, 100, 0)), per_token=per_token)
    after_a_round(policy)
    this = drafts(policy, 3, lambda _: (0.5, 0.5))
    assert this.drafted == 3
    this.accepted, this.emitted, this.verify_ms = 1, 2, 100.0
    policy.observe(this)
    assert policy.correction(0) == pytest.approx((0.99 * 16 + 1) / (0.99 * 16 + 0.5))
    start = 0.99**2 * 16
    assert policy.correction(1) == policy.correction(2) == pytest.approx(start / (start + 0.99 * 0.25 + 0.125))


def test_seeing_the_first_token_is_worth_something_too() -> None:
    """ρ = 1 / 100, T(γ) = 100 + 60 γ: a first token that survives with 0.55 does not pay for itself, 0.6."""
    policy = ThroughputPolicy(Says(0.55), 0, CostModel(Costs.linear(50, 100, 10)), max_gamma=8)
    assert policy.begin(room=100) == 8, "what it is worth can only be seen by drafting"

    def rounds(drafted: int, accepted: int) -> None:
        for _ in range(60):
            policy._asked = [(0, 0.55, 0.55)]
            signals = [0.5] * drafted
            times = {"draft_ms": 50.0 * drafted, "verify_ms": 100.0 + 10 * drafted}
            policy.observe(Round(0, signals, signals, accepted, accepted + 1, **times))
            policy._tokens = policy._ms = 0.0  # ρ and k as before
        policy._corrections = (Correction(), Correction())
        policy._busy = 0

    rounds(drafted=1, accepted=1)  # nothing came beyond the first
    assert policy.begin(room=100) == 0
    rounds(drafted=4, accepted=4)  # each brings 3 tokens for 180 ms beyond its first
    assert policy.begin(room=100) == 8


def stepped(survival: float) -> ThroughputPolicy:
    """Verifying costs 100 ms for up to three rows, 200 for up to six, 400 for more; drafting 10 a token."""
    cost = CostModel(Costs.linear(10, 100))
    for rows, verify in zip(range(1, 10), [100.0] * 3 + [200.0] * 3 + [400.0] * 3, strict=True):
        cost.observe(Round(0, [0.5] * (rows - 1), [0.5] * (rows - 1), draft_ms=10 * (rows - 1), verify_ms=verify))
    return ThroughputPolicy(Says(survival), 0, cost, max_gamma=8)


def test_looking_ahead_crosses_a_step_of_the_verify_when_it_pays() -> None:
    def signals(_: int) -> tuple[float, float]:
        return 0.5, 0.5

    # ρ = 1 / 100. A third token costs 110 ms, so 1.1 tokens, more than it can bring; up to five cost 130 and
    # bring S · (1 + 0.8 + 0.64) = 2.44 S. Beyond five, 230 ms for three more: 2.44 S never pays.
    assert drafts(stepped(0.9), 100, signals).drafted == 5
    assert drafts(stepped(0.54), 100, signals).drafted == 5  # 1.318 ≥ 1.3
    assert drafts(stepped(0.53), 100, signals).drafted == 2  # 1.293 < 1.3
    assert drafts(stepped(0.9), 3, signals).drafted == 2  # without room for five, the third is not worth it


def test_free_and_certain_drafts_go_to_the_limit() -> None:
    for per_token in (True, False):
        policy = ThroughputPolicy(Oracle(1.0), 0, CostModel(Costs.linear(0, 100, 0)), per_token=per_token)
        played = play(policy, World(1.0, 0.0, linear(100.0)), rounds=40, room=5)
        gammas = [this.drafted for this in played[1:]]
        assert set(gammas) <= {0, 5}
        assert gammas.count(0) <= 3  # now and then one token is decoded plainly, to time that too


@pytest.mark.parametrize("name", MAKERS)
def test_no_decision_sees_what_is_not_yet_known(name: str) -> None:
    controller = Oracle(0.8)
    policy = MAKERS[name](controller)
    draws = random.Random(3)
    before: Sequence[float] | None = None
    recent = RecentAcceptance()
    asked = 0
    for _ in range(60):
        controller.asked.clear()
        this = drafts(policy, 100, lambda _: (draws.random(), draws.random()))
        for signals, level, drafted in controller.asked:
            known = prefix(this.entropies[:drafted], this.confidences[:drafted], recent.value)
            assert (signals, level) == (known if policy.per_token else before, 1)
        this.accepted = draws.randint(0, this.drafted)
        this.emitted, this.draft_ms, this.verify_ms = this.accepted + 1, 30.0 * this.drafted, 100.0
        asked += len(controller.asked)
        recent.add(this.accepted, this.drafted)
        if this.drafted:
            before = summarize(this.entropies, this.confidences)
        policy.observe(this)
    assert (asked > 50) == (name != "fixed")


@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_learns_for_itself(name: str) -> None:
    world = World(0.8, 30.0, linear(100.0, 3.0))
    policy, untouched = MAKERS[name](Oracle(0.8)), MAKERS[name](Oracle(0.8))
    for one in (policy, untouched):
        play(one, world, 30, seed=1)
    play(copy.deepcopy(policy), World(0.1, 300.0, linear(900.0)), 60, seed=2)
    played, expected = play(policy, world, 30, seed=3), play(untouched, world, 30, seed=3)
    assert [this.drafted for this in played] == [this.drafted for this in expected]


def test_make_policy() -> None:
    cost, oracle = CostModel(Costs.linear(1, 1)), Oracle(0.5)
    fixed = make_policy(None, "throughput", "token", 0, cost, gamma=3)
    assert isinstance(fixed, FixedPolicy) and fixed.gamma == 3
    token = make_policy(oracle, "throughput", "token", 2, cost, max_gamma=5)
    assert isinstance(token, ThroughputPolicy) and token.per_token
    assert (token.max_gamma, token.level, token.cost) == (5, 2, cost)
    assert not make_policy(oracle, "throughput", "step", 0, cost).per_token
    assert isinstance(make_policy(oracle, "tokens", "token", 0, cost), TokensPolicy)
    usual = {"controller": oracle, "objective": "throughput", "mode": "token", "level": 0, "cost": cost}
    for changes, reason in (
        ({"objective": "speed"}, "objective speed: must be one of throughput, tokens"),
        ({"mode": "word"}, "mode word: must be one of token, step"),
        ({"max_gamma": 0}, "max_gamma 0: must be within 1 … 20"),
        ({"controller": None}, "a controller is needed unless gamma is fixed"),
        ({"gamma": -2}, "gamma -2: must be 0 or more"),
    ):
        with pytest.raises(SpecKVError) as refusal:
            make_policy(**(usual | changes))
        assert str(refusal.value) == reason

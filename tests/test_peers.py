"""The peers: each rule against a case worked out by hand, their bounds, and what they may not know."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import Oracle, World, drafts, linear, play

from speckv.benchmarks.peers import PEERS, make_peer
from speckv.benchmarks.peers.bandit import ARMS, Arm, Bandit
from speckv.benchmarks.peers.hf_default import HFDefault
from speckv.benchmarks.peers.hf_heuristic import HFHeuristic
from speckv.benchmarks.peers.p_min import PMin
from speckv.benchmarks.peers.sglang_ema import SGLangEMA
from speckv.benchmarks.peers.svip import SVIP
from speckv.controller.errors import SpecKVError
from speckv.controller.policies.tokens import TokensPolicy
from speckv.controller.policy import Policy, Round

EACH = ("plain", "fixed-16", *PEERS[PEERS.index("fixed-16") + 1 :])
"""One of each kind: the fixed ones are one class."""

STATEFUL = ("hf-default", "hf-heuristic", "sglang-ema", "bandit", "paper")


def peer(name: str) -> Policy:
    return make_peer(name, Oracle(0.8), level=1)


def finished(confidences: Sequence[float], matches: int) -> Round:
    return Round(0, [0.5] * len(confidences), list(confidences), matches, matches + 1, draft_ms=30.0, verify_ms=100.0)


def drafted(policy: Policy, entropies: Sequence[float] = (), confidences: Sequence[float] = (), room: int = 100) -> int:
    """How many tokens are drafted whose signals these are; the lists must outlast the draft."""

    def signals(i: int) -> tuple[float, float]:
        return (entropies[i] if entropies else 0.0), (confidences[i] if confidences else 1.0)

    return drafts(policy, room, signals).drafted


def test_the_names_and_their_order() -> None:
    fixed = [f"fixed-{gamma}" for gamma in range(17)]
    rules = ["hf-default", "hf-heuristic", "p-min", "svip", "sglang-ema", "bandit"]
    assert list(PEERS) == ["plain", *fixed, *rules, "paper"]
    assert [peer(name).begin(100) for name in ["plain", *fixed]] == [0, *range(17)]
    paper = peer("paper")
    assert isinstance(paper, TokensPolicy) and paper.level == 1
    with pytest.raises(SpecKVError, match="peer best: must be one of plain, fixed-0"):
        make_peer("best")
    with pytest.raises(SpecKVError, match="paper: needs a controller"):
        make_peer("paper")


def test_hf_default_stops_after_the_token_below_the_threshold() -> None:
    assert drafted(HFDefault(), confidences=[0.9, 0.4, 0.39, 0.9]) == 3
    assert drafted(HFDefault(), confidences=[0.1, 0.9]) == 1
    assert drafted(HFDefault()) == 20
    assert drafted(HFDefault(), room=7) == 7


def test_hf_default_refits_the_threshold() -> None:
    policy = HFDefault()
    policy.begin(100)
    policy.observe(finished([0.9, 0.8, 0.3], 2))  # matched 0.9 0.8, not 0.3
    policy.observe(finished([0.95, 0.5, 0.6, 0.35], 1))  # matched 0.95, not 0.5; of 0.6 and 0.35 nothing is known
    assert policy.threshold == 0.4  # five outcomes are too few
    policy.observe(finished([0.7], 1))
    assert policy.threshold == 0.7  # the sixth: from 0.7 on all match, below none does: FPR 0, FNR 0
    policy.observe(finished([0.75, 0.99], 0))
    # Matched 0.95 0.9 0.8 0.7, not 0.75 0.5 0.3. From 0.8 on: 0 + 3 · 1/4 = 0.75. From 0.7 on: 1/3 + 0.
    assert policy.threshold == 0.7
    for probability, costs in ((0.72, 2 / 4), (0.71, 3 / 5), (0.74, 4 / 6), (0.73, 5 / 7)):
        policy.observe(finished([probability], 0))
        assert costs < 0.75 and policy.threshold == 0.7
    policy.observe(finished([0.76], 0))  # 6 / 8 = 0.75 from 0.7 on, as from 0.8 on: the higher of equals
    assert policy.threshold == 0.8
    assert drafted(policy, confidences=[0.9, 0.8, 0.79, 0.9], room=50) == 3


def test_hf_default_needs_both_outcomes_and_starts_over_with_a_text() -> None:
    policy = HFDefault()
    policy.begin(100)
    policy.observe(finished([0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.41], 7))
    assert policy.threshold == 0.4
    policy.observe(finished([0.42], 0))
    assert policy.threshold == 0.45
    policy.begin(92)
    assert policy.threshold == 0.45
    policy.start()
    assert policy.threshold == 0.4
    policy.observe(finished([0.9, 0.1], 1))
    assert policy.threshold == 0.4  # the history is gone too


def test_hf_heuristic_counts_up_by_two_and_down_by_one_across_texts() -> None:
    policy = HFHeuristic()
    assert policy.begin(100) == 20
    policy.observe(finished([0.9] * 20, 20))
    assert policy.begin(79) == 22
    policy.observe(finished([0.9, 0.1], 2))  # stopped by the threshold after two, and accepted whole
    assert policy.begin(76) == 24
    policy.observe(finished([0.9] * 24, 23))
    policy.start()
    assert policy.begin(200) == 23  # another text
    policy.observe(finished([], 0))  # no room: none drafted, none rejected
    assert policy.begin(190) == 25
    for _ in range(40):
        policy.observe(finished([0.9], 0))
    assert policy.begin(80) == 1


def test_hf_heuristic_keeps_the_threshold() -> None:
    policy = HFHeuristic()
    assert drafted(policy, confidences=[0.9, 0.39, 0.9]) == 2
    policy.observe(finished([0.9, 0.8, 0.7, 0.6, 0.5, 0.45], 5))
    assert policy.threshold == 0.5
    policy.start()
    assert policy.begin(200) == 19 and policy.threshold == 0.4


def test_p_min() -> None:
    assert drafted(PMin(), confidences=[0.9, 0.75, 0.74, 0.9]) == 3  # the token below 0.75 is drafted
    assert drafted(PMin()) == 16
    assert drafted(PMin(), room=3) == 3


def test_svip() -> None:
    # √(0.15 · 0.59) = 0.2975, √(0.15 · 0.61) = 0.3025
    assert drafted(SVIP(), entropies=[0.0, 0.59, 0.61, 0.0]) == 3
    assert drafted(SVIP(), entropies=[-1e-7] * 40) == 40


def test_sglang_ema() -> None:
    policy = SGLangEMA()

    def after_five(accepted: int) -> tuple[int, float]:
        for _ in range(5):
            gamma = policy.begin(100)
            policy.observe(finished([0.9] * gamma, min(accepted, gamma)))
        return policy.begin(100), policy.mean_accepted

    # 0.8⁵ = 0.32768 of the distance is left after five rounds.
    assert after_five(3) == (3, pytest.approx(3 - 0.32768))  # m starts at 2
    assert after_five(3) == (3, pytest.approx(3 - 0.1073742))  # 2.893 > 2.5, but ten rounds are warm-up
    assert after_five(3) == (5, pytest.approx(2.9648156))
    assert after_five(5) == (5, pytest.approx(4.3331108))  # not above 4.5
    assert after_five(5) == (7, pytest.approx(4.7814738))
    assert after_five(0) == (3, pytest.approx(1.5667933))  # ≤ 4.25, ≤ 2.25, not ≤ 0.25: two down at once
    assert after_five(0) == (3, pytest.approx(0.5134068))
    assert after_five(0) == (1, pytest.approx(0.1682332))
    assert after_five(1) == (3, pytest.approx(0.7274467))  # above 0.5, not above 2.5
    assert policy.begin(2) == 2


def test_sglang_ema_leaves_out_drafts_that_the_text_cut_short() -> None:
    policy = SGLangEMA()
    policy.observe(finished([0.9] * 2, 2))
    policy.observe(finished([], 0))
    assert (policy.mean_accepted, policy.rounds) == (2.0, 0)
    policy.observe(finished([0.9] * 2, 1))
    assert (policy.mean_accepted, policy.rounds) == (pytest.approx(1.8), 1)


class Noise:
    """Draws the same normal number every time."""

    def __init__(self, value: float) -> None:
        self.value = value

    def gauss(self, mean: float, deviation: float) -> float:
        return mean + self.value * deviation


def test_bandit() -> None:
    policy = Bandit()
    for gamma in ARMS:  # each once, in order
        assert policy.begin(100) == gamma
        tokens, ms = {3: (3, 140.0), 4: (5, 160.0)}.get(gamma, (1, 100.0 + 10 * gamma))
        policy.observe(Round(0, [0.5] * gamma, [0.5] * gamma, tokens - 1, tokens, draft_ms=ms - 90, verify_ms=90))
    policy.observe(Round(0, [0.5] * 4, [0.5] * 4, 2, 3, draft_ms=150, verify_ms=90))
    # γ 4: 8 tokens in 400 ms, 0.0200; a mean of ratios, (5/160 + 3/240) / 2 = 0.0219, would put it before
    # γ 3: 3 tokens in 140 ms, 0.0214.
    policy._draws = Noise(0.0)  # type: ignore[assignment]
    assert policy.begin(100) == 3
    assert policy.begin(2) == 0  # of γ 0, 1, 2 with 1 token in 100, 110, 120 ms
    # A standard error above: γ 4 has Σ(x − 4)² = 2, variance (2 + 4) / 3 = 2, error √(2/2) = 1.
    assert policy.arms[4].sample(4, 1.0) == pytest.approx((4 + 1) / 200)
    assert policy.arms[16].sample(16, 1.0) == pytest.approx((1 + 32**0.5) / 260)  # (0 + 64) / 2 = 32


def test_bandit_leaves_out_what_it_cannot_use_and_finds_the_best() -> None:
    policy = Bandit()
    policy.observe(Round(0, verify_ms=900.0, verify_prefill=True))
    policy.observe(Round(0, [0.5], [0.5], draft_ms=900.0, verify_ms=100.0, draft_prefill=True))
    policy.observe(Round(0, [0.5] * 20, [0.5] * 20, draft_ms=900.0, verify_ms=100.0))
    policy.observe(Round(0))
    assert policy.arms == [Arm()] * 17
    world = World(0.6, 60.0, linear(100.0))
    gammas = [this.drafted for this in play(policy, world, 2000)][-500:]
    best = max(ARMS, key=world.fixed)
    assert max(ARMS, key=gammas.count) == best and gammas.count(best) > 200


@pytest.mark.parametrize("name", EACH)
@given(
    rounds=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.floats(0, 12), st.floats(0, 1)), max_size=30)
)
def test_gamma_is_within_its_bounds_whatever_comes(name: str, rounds: list[tuple[int, int, float, float]]) -> None:
    policy = peer(name)
    for room, accepted, entropy, confidence in rounds:
        gamma = copy.deepcopy(policy).begin(room)
        assert type(gamma) is int and 0 <= gamma <= room
        this = drafts(policy, room, lambda _, signals=(entropy, confidence): signals)
        this.accepted = min(accepted, this.drafted)
        this.emitted, this.draft_ms, this.verify_ms = this.accepted + 1, 30.0 * this.drafted, 100.0
        policy.observe(this)


SIGNALS = st.lists(st.tuples(st.floats(0, 2), st.floats(0, 1)), min_size=30, max_size=30)


@pytest.mark.parametrize("name", EACH)
@given(one=SIGNALS, other=SIGNALS, same=st.integers(0, 30), warm=st.integers(0, 40))
def test_whether_to_draft_on_depends_on_what_was_drafted_only(
    name: str, one: list[tuple[float, float]], other: list[tuple[float, float]], same: int, warm: int
) -> None:
    policy = peer(name)
    play(policy, World(0.7, 30.0, linear(100.0)), warm)
    other = one[:same] + other[same:]
    first = drafts(copy.deepcopy(policy), 30, one.__getitem__)
    second = drafts(copy.deepcopy(policy), 30, other.__getitem__)
    assert min(first.drafted, same + 1) == min(second.drafted, same + 1)


@pytest.mark.parametrize("name", EACH)
def test_asking_changes_nothing_and_a_copy_learns_for_itself(name: str) -> None:
    world = World(0.7, 30.0, linear(100.0))
    policy, untouched = peer(name), peer(name)
    for one in (policy, untouched):
        play(one, world, 60)
    play(copy.deepcopy(policy), World(0.1, 300.0, linear(900.0)), 60)
    for _ in range(3):
        policy.more((0.1, 5.0), (0.9, 0.01))
    played, expected = play(policy, world, 60, seed=1), play(untouched, world, 60, seed=1)
    assert [this.drafted for this in played] == [this.drafted for this in expected]
    assert (len({this.drafted for this in expected}) > 1) <= (name in STATEFUL)

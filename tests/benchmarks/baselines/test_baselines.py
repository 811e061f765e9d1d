"""The peers: each rule against a case worked out by hand, their bounds, and what they may not know."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from simulation import Oracle, World, draft, level, linear, play

from speckv.benchmarks.baselines import PEERS, make_peer
from speckv.benchmarks.baselines.bandit import ARMS, Arm, Bandit
from speckv.benchmarks.baselines.hf_default import HFDefault
from speckv.benchmarks.baselines.hf_heuristic import HFHeuristic
from speckv.benchmarks.baselines.p_min import PMin
from speckv.benchmarks.baselines.sglang_ema import SGLangEMA
from speckv.benchmarks.baselines.svip import SVIP
from speckv.controller.errors import SpecKVError
from speckv.controller.policies.tokens import TokensPolicy
from speckv.controller.policy import Level, Policy, Request, Round


def peer(name: str) -> Policy:
    return make_peer(name, Oracle(0.8), level=1)


TEXT = Request()


def finished(
    confidences: Sequence[float], matches: int, draft_ms: float = 30.0, verify_ms: float | None = 100.0, **more: bool
) -> Round:
    """A round of one request, all of it verified."""
    levels = [level(0.5, confidence) for confidence in confidences]
    rank = 4 if matches < len(levels) else 0
    ended = {
        "accepted": [matches],
        "ranks": [rank],
        "emitted": matches + 1,
        "draft_ms": draft_ms,
        "verify_ms": verify_ms,
    }
    return Round([TEXT], levels=levels, gamma=len(levels), **ended, **more)  # type: ignore[arg-type]


def begun(policy: Policy, room: int = 100, text: Request = TEXT) -> int:
    return policy.begin(Round([text]), room)


def drafted(policy: Policy, entropies: Sequence[float] = (), confidences: Sequence[float] = (), room: int = 100) -> int:
    """How many tokens are drafted whose signals these are; the lists must outlast the draft."""

    def levels(i: int) -> Level:
        return level(entropies[i] if entropies else 0.0, confidences[i] if confidences else 1.0)

    return draft(policy, Round([TEXT]), room, levels).gamma


def test_the_names_and_their_order() -> None:
    fixed = [f"fixed-{gamma}" for gamma in range(17)]
    rules = ["hf-default", "hf-heuristic", "p-min", "svip", "sglang-ema", "bandit"]
    assert list(PEERS) == ["plain", *fixed, *rules, "paper"]
    assert [begun(peer(name)) for name in ["plain", *fixed]] == [0, *range(17)]
    paper = peer("paper")
    assert isinstance(paper, TokensPolicy) and paper.compression == 1
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
    begun(policy)
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
    begun(policy)
    policy.observe(finished([0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.41], 7))
    assert policy.threshold == 0.4
    policy.observe(finished([0.42], 0))
    assert policy.threshold == 0.45
    begun(policy, 92)
    assert policy.threshold == 0.45
    begun(policy, 100, Request())
    assert policy.threshold == 0.4
    policy.observe(finished([0.9, 0.1], 1))
    assert policy.threshold == 0.4  # the history is gone too


def test_hf_heuristic_counts_up_by_two_and_down_by_one_across_texts() -> None:
    policy = HFHeuristic()
    assert begun(policy) == 20
    policy.observe(finished([0.9] * 20, 20))
    assert begun(policy, 79) == 22
    policy.observe(finished([0.9, 0.1], 2))  # stopped by the threshold after two, and accepted whole
    assert begun(policy, 76) == 24
    policy.observe(finished([0.9] * 24, 23))
    assert begun(policy, 200, Request()) == 23  # another text
    policy.observe(finished([], 0))  # no room: none drafted, none rejected
    assert begun(policy, 190) == 25
    for _ in range(40):
        policy.observe(finished([0.9], 0))
    assert begun(policy, 80) == 1


def test_hf_heuristic_keeps_the_threshold() -> None:
    policy = HFHeuristic()
    assert drafted(policy, confidences=[0.9, 0.39, 0.9]) == 2
    policy.observe(finished([0.9, 0.8, 0.7, 0.6, 0.5, 0.45], 5))
    assert policy.threshold == 0.5
    assert begun(policy, 200, Request()) == 19 and policy.threshold == 0.4


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
            gamma = begun(policy)
            policy.observe(finished([0.9] * gamma, min(accepted, gamma)))
        return begun(policy), policy.mean_accepted

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
    assert begun(policy, 2) == 2


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
        assert begun(policy) == gamma
        tokens, ms = {3: (3, 140.0), 4: (5, 160.0)}.get(gamma, (1, 100.0 + 10 * gamma))
        policy.observe(finished([0.5] * gamma, tokens - 1, ms - 90, 90))
    policy.observe(finished([0.5] * 4, 2, 150, 90))
    # γ 4: 8 tokens in 400 ms, 0.0200; a mean of ratios, (5/160 + 3/240) / 2 = 0.0219, would put it before
    # γ 3: 3 tokens in 140 ms, 0.0214.
    policy._draws = Noise(0.0)  # type: ignore[assignment]
    assert begun(policy) == 3
    assert begun(policy, 2) == 0  # of γ 0, 1, 2 with 1 token in 100, 110, 120 ms
    # A standard error above: γ 4 has Σ(x − 4)² = 2, variance (2 + 4) / 3 = 2, error √(2/2) = 1.
    assert policy.arms[4].sample(4, 1.0) == pytest.approx((4 + 1) / 200)
    assert policy.arms[16].sample(16, 1.0) == pytest.approx((1 + 32**0.5) / 260)  # (0 + 64) / 2 = 32


def test_bandit_leaves_out_what_it_cannot_use_and_finds_the_best() -> None:
    policy = Bandit()
    policy.observe(finished([], 0, verify_prefill=True))
    policy.observe(finished([0.5], 0, draft_prefill=True))
    policy.observe(finished([0.5] * 20, 0))
    policy.observe(finished([], 0, draft_ms=0.0, verify_ms=None))
    assert policy.arms == [Arm()] * 17
    world = World(0.6, 60.0, linear(100.0))
    gammas = [this.gamma for this in play(policy, world, 2000)][-500:]
    best = max(ARMS, key=world.fixed)
    assert max(ARMS, key=gammas.count) == best and gammas.count(best) > 200


@pytest.mark.parametrize("tokens", [[2, 3], [0, 5]])
def test_of_a_batch_the_bandit_and_the_ema_take_the_mean(tokens: list[int]) -> None:
    ema, bandit = SGLangEMA(), Bandit()
    levels = [level([0.5] * 2)] * 5
    this = Round([Request(), Request()], levels=levels, gamma=5, accepted=tokens, ranks=[1, 1], emitted=sum(tokens) + 2)
    this.draft_ms, this.verify_ms = 30.0, 100.0
    for policy in (ema, bandit):
        policy.observe(this)
    assert ema.mean_accepted == pytest.approx(0.8 * 2 + 0.2 * 2.5)
    assert (bandit.arms[5].tokens, bandit.arms[5].rounds) == (3.5, 1)

"""What the throughput policy earns in simulated worlds, against plain decoding and every fixed γ."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from simulation import Oracle, World, earned, linear, milliseconds, play

from speckv.controller.cost import CostModel, Costs
from speckv.controller.policies.throughput import DEFAULT_CEILING, HIGHEST_CEILING, ThroughputPolicy
from speckv.controller.policy import Round

ROUNDS = 800
WORTH = 0.97
ACCEPTANCES = (0.1, 0.3, 0.5, 0.7, 0.9)
DRAFTS = (0.02, 0.1, 0.3, 0.6, 1.0)
"""Draft time as a share of verify time."""

SMALL_GAIN = (0.7, 0.6)
"""Here drafting gains 4.9 %, which chance can hide for long."""

GRID = list(product(ACCEPTANCES, DRAFTS))


def throughput(told: float, per_token: bool = True) -> ThroughputPolicy:
    """A policy whose controller is ``told`` an acceptance and whose first costs are wrong."""
    return ThroughputPolicy(Oracle(told), 0, CostModel(Costs.linear(20, 80)), max_gamma=8, per_token=per_token)


def pair(acceptance: float, draft: float) -> World:
    return World(acceptance, 100 * draft, linear(100.0, 2.0))


@pytest.mark.parametrize(
    ("acceptance", "draft", "per_token"),
    [(*cell, True) for cell in GRID] + [(*cell, False) for cell in GRID[::2]],
)
def test_as_good_as_the_best_fixed_gamma(acceptance: float, draft: float, per_token: bool) -> None:
    world = pair(acceptance, draft)
    got = earned(world, play(throughput(acceptance, per_token), world, ROUNDS, seed=1))
    assert got >= WORTH * world.best_fixed()
    assert got >= WORTH * world.plain


def test_a_small_gain_is_kept() -> None:
    world = pair(*SMALL_GAIN)
    got = [earned(world, play(throughput(world.acceptance), world, ROUNDS, seed)) for seed in range(3)]
    assert min(got) >= WORTH * world.best_fixed()


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize(("told", "acceptance"), [(0.95, 0.3), (0.6, 0.3), (0.3, 0.6), (0.3, 0.95)])
@pytest.mark.parametrize("draft", [0.1, 0.5])
def test_a_controller_that_is_wrong_never_costs_much(
    told: float, acceptance: float, draft: float, per_token: bool
) -> None:
    world = pair(acceptance, draft)
    played = play(throughput(told, per_token), world, ROUNDS, seed=1)
    assert earned(world, played) >= 0.96 * world.plain
    assert earned(world, played[ROUNDS // 2 :]) >= WORTH * world.plain


@pytest.mark.parametrize("per_token", [True, False])
def test_where_nothing_is_accepted_it_only_probes_ever_more_rarely(per_token: bool) -> None:
    world = pair(0.0, 0.5)
    played = play(throughput(0.0, per_token), world, 2000)
    drafted = [number for number, this in enumerate(played) if this.drafted]
    assert len(drafted) >= 10  # it would notice
    wasted = milliseconds(played) - 2000 * world.verify_ms(1)
    assert wasted / milliseconds(played) < 0.03
    gaps = [after - before for before, after in pairwise(drafted[1:])]
    assert gaps == sorted(gaps) and gaps[-1] > 100


@pytest.mark.parametrize("per_token", [True, False])
def test_a_pair_that_starts_to_pay_is_noticed(per_token: bool) -> None:
    policy = throughput(0.0, per_token)
    play(policy, pair(0.0, 0.1), 300)
    policy.controller = Oracle(0.9)
    better = pair(0.9, 0.1)
    play(policy, better, 300, seed=1)
    assert earned(better, play(policy, better, 200, seed=2)) >= WORTH * better.best_fixed()


def losing_rounds(world: World, rounds: list[Round]) -> int:
    """Rounds until γ is one that pays, for at least as long as no probe is due."""
    last = -1
    for number, this in enumerate(rounds):
        if number - last > 8:
            break
        if world.fixed(this.drafted) < 0.999 * world.plain:
            last = number
    return last + 1


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("slower", [{"draft": 3.0}, {"verify": 3.0}], ids=["draft", "verify"])
@pytest.mark.parametrize(("acceptance", "draft"), [(0.3, 0.1), (0.5, 0.25), (0.7, 0.25), (0.9, 0.5)])
def test_three_times_slower_it_is_not_below_plain_for_long(
    acceptance: float, draft: float, slower: dict[str, float], per_token: bool
) -> None:
    world = pair(acceptance, draft)
    after = world.slower(**slower)
    for seed in range(2):
        policy = throughput(acceptance, per_token)
        play(policy, world, 100, seed)
        assert losing_rounds(after, play(policy, after, 60, seed + 9)) <= 20


def test_plain_decoding_is_found_where_it_is_best_from_the_start() -> None:
    """As measured for an nf4 target on a CPU: one row is far cheaper than the guess from three says."""
    rows = (75.0, 108.0, 141.0, 163.0, 186.0, 228.0, 270.0, 312.0, 354.0)
    world = World(0.95, 65.0, lambda count: rows[count - 1])
    assert earned(world, play(throughput(0.95), world, ROUNDS)[200:]) >= 0.95 * world.plain  # 0.954; rarer probes later


def test_a_verify_that_gets_cheaper_is_noticed() -> None:
    world = pair(0.95, 0.5)
    policy = throughput(0.95)
    play(policy, world, 200)
    after = world.slower(verify=1 / 3)
    assert earned(after, play(policy, after, 400, seed=1)[200:]) >= WORTH * after.plain


def prefills_to_probe(texts: int) -> tuple[float, float]:
    """Share of the time that the draft's prefills take where speculation never pays, and of all time before the first.

    Texts are of 40 tokens, new to the draft each, whose prefill takes half as long as the target's.
    """
    policy = ThroughputPolicy(Oracle(0.0), 0, CostModel(Costs.linear(50, 100)))
    spent = prefills = before = 0.0
    for _ in range(texts):
        seen = False
        policy.start()
        for position in range(40):
            gamma = policy.begin(40 - position)
            outcome = Round(
                position, [1.0] * gamma, [0.5] * gamma, 0, 1, draft_ms=50.0 * gamma, verify_ms=100 + 5 * gamma
            )
            if not position:
                outcome.verify_prefill = True
                outcome.verify_ms = 1200.0
            if gamma and not seen:
                seen = outcome.draft_prefill = True
                outcome.draft_ms += 600.0
                before = before or spent
                prefills += 600.0
            spent += outcome.draft_ms + outcome.verify_ms
            policy.observe(outcome)
    return prefills / spent, before


def test_a_prefill_only_to_probe_is_rare() -> None:
    """Not even the first one comes before a hundred times its time, guessed from the target's, went by without it."""
    share, before = prefills_to_probe(200)
    assert 0 < share < 0.02
    assert before >= 0.9 * 60_000


@pytest.mark.parametrize("per_token", [True, False])
def test_the_default_ceiling_is_lifted_once_it_was_reached_and_all_accepted(per_token: bool) -> None:
    """Where a draft costs next to nothing and nearly all is accepted; a ceiling that was asked for stays."""
    world = World(0.99, 2.0, linear(100.0, 1.0))
    for asked, expected in ((None, {DEFAULT_CEILING, HIGHEST_CEILING}), (DEFAULT_CEILING, {DEFAULT_CEILING})):
        policy = ThroughputPolicy(Oracle(0.99), 0, CostModel(Costs.linear(2, 100)), asked, per_token)
        played = play(policy, world, 200)
        reached = [this for this in played if this.drafted >= DEFAULT_CEILING]
        assert {this.drafted for this in reached} & {DEFAULT_CEILING, HIGHEST_CEILING} == expected
        first_whole = next(number for number, this in enumerate(played) if this.accepted == DEFAULT_CEILING)
        assert all(this.drafted <= DEFAULT_CEILING for this in played[: first_whole + 1])


def test_a_pair_that_never_gets_that_far_keeps_the_default_ceiling() -> None:
    policy = ThroughputPolicy(Oracle(0.3), 0, CostModel(Costs.linear(10, 100)))
    play(policy, pair(0.3, 0.1), 300)
    assert policy.max_gamma == DEFAULT_CEILING

"""What the throughput policy earns in simulated worlds whose best shape is known, in both of its modes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from simulation import Oracle, World, earned, linear, milliseconds, play

from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs
from speckv.controller.policies.throughput import ThroughputPolicy
from speckv.controller.policy import Request, Round

WARM_UP, ROUNDS, WORTH = 80, 300, 0.98

MODES = pytest.mark.parametrize("per_level", [True, False], ids=["token", "step"])

PAYS = [(0.5, 0.02), (0.5, 0.25), (0.7, 0.1), (0.9, 0.3), (0.95, 0.6)]
LOSES = [(0.0, 0.5), (0.3, 0.5), (0.8, 1.5)]
"""(acceptance, a level's time as a share of a verify's)."""

RIGHT = (0.5, 0.2, 0.1)
"""Of a rejected token, how often the siblings are right."""

FAR = (0.9, 0.02)
"""Here 15 levels are best."""


def pair(acceptance: float, draft: float, size: int = 1, server: bool = False) -> World:
    world = World(acceptance, 100 * draft, linear(100.0, 2.0 / size), size=size)
    return replace(world, extend_ms=linear(100 * draft, 0.1)) if server else world


def calibrated(world: World) -> CostModel:
    verify = {rows: world.verify_ms(rows) for rows in (1, 2)}
    return CostModel(Costs({1: world.draft_ms}, verify), world.extend_ms is not None)


def guessed(world: World) -> CostModel:
    return CostModel(Costs.linear(20, 80), world.extend_ms is not None)


def policy(controller: Oracle, cost: CostModel, per_level: bool = True, siblings: bool = False) -> ThroughputPolicy:
    return ThroughputPolicy(controller, 0, cost, per_level=per_level, siblings=siblings)


def settled(one: ThroughputPolicy, world: World, rounds: int = ROUNDS, seed: int = 1) -> list[Round]:
    return play(one, world, WARM_UP + rounds, seed)[WARM_UP:]


@MODES
@pytest.mark.parametrize("world", PAYS + LOSES, ids=str)
@pytest.mark.parametrize(
    ("size", "server", "cost"), [(1, False, guessed), (8, False, calibrated), (8, True, calibrated)]
)
def test_as_good_as_the_best_fixed_gamma(
    world: tuple[float, float], size: int, server: bool, cost: Any, per_level: bool
) -> None:
    here = pair(*world, size, server)
    assert (here.best_fixed() == here.plain) == (world in LOSES)
    got = earned(here, settled(policy(Oracle(here.acceptance), cost(here), per_level), here))
    assert got >= WORTH * here.best_fixed()


@pytest.mark.parametrize("size", [1, 8])
def test_far_ahead_where_that_is_best(size: int) -> None:
    world = pair(*FAR, size)
    assert max(range(21), key=world.fixed) == 15
    assert (
        earned(world, settled(policy(Oracle(world.acceptance), calibrated(world)), world)) >= WORTH * world.best_fixed()
    )


@pytest.mark.xfail(
    strict=True,
    reason="before drafting FURTHEST + 1 = 9 levels are looked at: 0.94 of the best. A head taught 16 is worse near by",
)
def test_far_ahead_where_that_is_best_before_drafting() -> None:
    world = pair(*FAR)
    one = policy(Oracle(world.acceptance), calibrated(world), per_level=False)
    assert earned(world, settled(one, world)) >= WORTH * world.best_fixed()


@MODES
@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("row_ms", [0.0, 2.0, 30.0], ids=["rows are free", "as guessed", "rows are dear"])
def test_rows_that_cost_other_than_guessed(row_ms: float, size: int, per_level: bool) -> None:
    world = World(0.5, 2.0, linear(100.0, row_ms / size), RIGHT, size)
    for siblings in (False, True):
        played = settled(policy(Oracle(0.5), guessed(world), per_level, siblings), world)
        assert earned(world, played) >= WORTH * (world.best_tree() if siblings else world.best_fixed())


@MODES
@pytest.mark.parametrize("size", [1, 8])
def test_where_nothing_is_accepted_it_rests(size: int, per_level: bool) -> None:
    world = pair(0.0, 0.5, size)
    played = play(policy(Oracle(0.0), guessed(world), per_level), world, 1200)
    drafted = [len(this.levels) for this in played[300:]]
    assert 0 < sum(drafted) < 0.02 * len(drafted)
    assert milliseconds(played) / (1200 * world.verify_ms(size)) < 1.02


@MODES
def test_many_requests_at_once_teach_nothing_wrong_of_fewer(per_level: bool) -> None:
    """As timed in a server: a verify takes 44 ms, 8.75 for each request and 1.4 for each of their rows."""

    def served(size: int) -> World:
        return World(0.6, 9.0, lambda rows: 44.0 + 8.75 * size + 1.4 * rows, RIGHT, size, extend_ms=linear(12.0, 0.5))

    one = policy(Oracle(0.6), CostModel(Costs.linear(9.0, 54.0), extends=True), per_level, siblings=True)
    for size in (1, 8, 2, 6, 4, 8, 4):
        played = play(one, served(size), 120, seed=size)
        assert earned(served(size), played[40:]) >= WORTH * served(size).best_tree()


@MODES
def test_a_batch_shows_soon_that_its_draft_is_too_dear(per_level: bool) -> None:
    """Its first tokens hold, and still cost more than they bring: every request of a round is evidence of that."""
    world = World(0.85, 50.0, linear(50.0, 50.0 / 7), size=8)
    assert world.best_fixed() == world.plain
    played = play(policy(Oracle(0.85), calibrated(world), per_level), world, 40)
    assert 0 < sum(bool(this.levels) for this in played) <= 8


@MODES
@pytest.mark.parametrize(
    ("slower", "pays"),
    [({"draft": 8.0}, False), ({"verify": 1 / 8}, False), ({"draft": 1 / 4}, True), ({"verify": 4.0}, True)],
)
def test_costs_that_change_are_noticed(slower: dict[str, float], pays: bool, per_level: bool) -> None:
    world = pair(0.7, 0.25)
    one = policy(Oracle(0.7), calibrated(world), per_level)
    play(one, world, 200)
    after = world.slower(**slower)
    assert (after.best_fixed() > after.plain) == pays
    assert earned(after, settled(one, after)) >= WORTH * after.best_fixed()


@MODES
@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize(
    ("host_ms", "pays"),
    [((0.0, 60.0), False), ((150.0, 150.0), True)],
    ids=["waits for decisions", "schedules as long either way"],
)
def test_what_the_host_takes_around_the_forwards(
    host_ms: tuple[float, float], pays: bool, size: int, per_level: bool
) -> None:
    """By the forwards alone the first would draft at a loss, and the second would rest where drafting pays."""
    world = replace(pair(0.5, 0.6 if pays else 0.1, size, server=True), host_ms=host_ms)
    alone = replace(world, host_ms=(0.0, 0.0))
    assert (world.best_fixed() > world.plain, alone.best_fixed() > alone.plain) == (pays, not pays)
    played = settled(policy(Oracle(0.5), calibrated(world), per_level), world)
    assert earned(world, played) >= WORTH * world.best_fixed()


@MODES
def test_a_draft_that_becomes_cheap_enough_is_noticed_while_it_rests(per_level: bool) -> None:
    before = pair(0.8, 2.0)
    one = policy(Oracle(0.8), calibrated(before), per_level)
    assert not any(this.levels for this in play(one, before, 300)[-100:-90])
    after = before.slower(draft=1 / 20)
    play(one, after, 300, seed=2)
    assert earned(after, settled(one, after)) >= WORTH * after.best_fixed()


@MODES
@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("row_ms", [0.0, 5.0, 40.0], ids=["rows are free", "rows cost", "rows are dear"])
def test_siblings_where_they_pay(row_ms: float, size: int, per_level: bool) -> None:
    world = World(0.6, 20.0, linear(100.0, row_ms / size), RIGHT, size)
    played = settled(policy(Oracle(0.6), calibrated(world), per_level, siblings=True), world)
    assert earned(world, played) >= WORTH * world.best_tree()
    beside = sum(this.offered_siblings for this in played) / size / len(played)
    if row_ms == 0.0:
        assert world.best_tree() > 1.2 * world.best_fixed() and beside > 5
    elif row_ms == 5.0:
        assert 2 < beside < 4
    else:
        assert world.best_tree() == world.best_fixed() and beside < 0.05


@MODES
@pytest.mark.parametrize(("size", "bias"), [(1, 0.7), (8, 0.7), (1, 1.3)])
@pytest.mark.parametrize("world", [(0.5, 0.02), (0.7, 0.1), (0.9, 0.3), (0.1, 1.0)], ids=str)
def test_a_controller_that_is_wrong_by_a_factor_is_corrected(
    world: tuple[float, float], bias: float, size: int, per_level: bool
) -> None:
    here = pair(*world, size)
    one = policy(Oracle(here.acceptance, bias), calibrated(here), per_level)
    assert earned(here, settled(one, here)) >= WORTH * here.best_fixed()
    if world[1] < 0.2:  # it drafts enough to learn by how much; a survival said to be above 1 is said to be 1
        assert one._correction.seen.value == pytest.approx(1 / bias, rel=0.2)


@MODES
@pytest.mark.parametrize(("told", "acceptance"), [(0.95, 0.3), (0.6, 0.3), (0.3, 0.95)])
@pytest.mark.parametrize("draft", [0.1, 0.5])
def test_a_controller_that_knows_nothing_never_costs_much(
    told: float, acceptance: float, draft: float, per_level: bool
) -> None:
    world = pair(acceptance, draft)
    played = play(policy(Oracle(told), guessed(world), per_level), world, 2 * ROUNDS, seed=1)
    assert earned(world, played) >= 0.96 * world.plain
    assert earned(world, played[ROUNDS:]) >= 0.97 * world.plain


@MODES
@pytest.mark.parametrize(("held", "drafts", "knows"), [(2, True, True), (7, False, True), (7, False, False)])
def test_requests_that_are_decoded_plainly_beside_others(
    monkeypatch: pytest.MonkeyPatch, per_level: bool, held: int, drafts: bool, knows: bool
) -> None:
    """They make a round dearer and get nothing of it; a policy that does not know it drafts for one of eight."""
    if not knows:
        begin = ThroughputPolicy.begin

        def unknowing(one: ThroughputPolicy, this: Round, room: int) -> int:
            known, this.plain = this.plain, frozenset()
            most = begin(one, this, room)
            this.plain = known
            return most

        monkeypatch.setattr(ThroughputPolicy, "begin", unknowing)
    here = World(0.8, 4.0, linear(100.0, 2.5), RIGHT, size=8, held=held)
    assert (here.best_tree() > here.plain) == drafts
    one = policy(Oracle(here.acceptance), calibrated(here), per_level, siblings=True)
    rounds = settled(one, here)
    if knows:
        assert earned(here, rounds) >= WORTH * here.best_tree()
        assert all(request.recent.values == Request().recent.values for request in rounds[0].requests[:held])
    else:
        assert earned(here, rounds) < here.plain

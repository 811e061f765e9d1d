"""The clairvoyant bounds are the least of all choices, and nothing is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain, combinations

import pytest
from replays import REGIME, StaticTree, random_positions, random_trace
from simulation import Oracle

from speckv.benchmarks.baselines import make_peer
from speckv.benchmarks.replay.bounds import clairvoyant
from speckv.benchmarks.replay.engine import Played, play
from speckv.benchmarks.replay.positions import Positions
from speckv.benchmarks.replay.regimes import Measured, Regime
from speckv.benchmarks.replay.shapes import SHAPES, play_shape
from speckv.controller.policies.throughput import ThroughputPolicy
from speckv.controller.policy import SIBLINGS, Policy

Siblings = frozenset[tuple[int, int]]
"""(depth, rank) of each."""


def trees(levels: int, siblings: bool) -> Iterator[tuple[int, Siblings]]:
    """(spine tokens verified, siblings) of all trees within so many levels."""
    for spine in range(levels + 1):
        deepest = min(spine, levels - 1)  # a sibling needs the spine before it, and that its level was drafted
        every = [(depth, rank) for depth in range(deepest + 1) for rank in range(1, SIBLINGS + 1)] if siblings else []
        for chosen in chain.from_iterable(combinations(every, count) for count in range(len(every) + 1)):
            yield spine, frozenset(chosen)


def brute_force(positions: Positions, regime: Regime, siblings: bool) -> float:
    """Milliseconds of the first sequence, by trying every tree at every position."""
    end = int(positions.ends[0])
    verify, level_ms = regime.verify_table(1), regime.draft_ms(1)

    @lru_cache
    def least(at: int) -> float:
        if at >= end:
            return 0.0
        found = []
        for levels in range(min(int(positions.room[at]), int(positions.lengths[at])) + 1):
            for spine, beside in trees(levels, siblings):
                accepted = min(int(positions.matches[at]), spine)
                stopped = at + accepted
                mended = stopped < end and (accepted, int(positions.ranks[stopped])) in beside
                ms = levels * level_ms + float(verify[1 + spine + len(beside)])
                found.append(ms + least(at + accepted + 1 + mended))
        return min(found)

    return least(0)


FREE = Regime("free", "fp16", "none", Measured({1: {1: 3.0}}), Measured({1: {1: 100.0}}))
STEPS = Regime(
    "steps", "fp16", "none", Measured({1: {1: 10.0}}), Measured({1: {1: 100.0, 3: 100.0, 4: 150.0, 20: 150.0}})
)


@pytest.mark.parametrize("regime", [REGIME, FREE, STEPS], ids=lambda regime: regime.name)
@pytest.mark.parametrize("siblings", [False, True])
@pytest.mark.parametrize(("seed", "tokens"), [(0, 5), (1, 5), (4, 5), (5, 3), (9, 4)])
def test_the_bound_is_the_least_of_all_choices(seed: int, tokens: int, siblings: bool, regime: Regime) -> None:
    """A sequence of three or four tokens of the five it may have ended early."""
    positions = Positions([random_trace(seed, tokens, depth=5, most=5)], 5)
    assert clairvoyant(positions, regime, [0], siblings).ms == pytest.approx(brute_force(positions, regime, siblings))


def test_siblings_are_worth_something_to_it() -> None:
    positions = random_positions()
    chains, trees = (clairvoyant(positions, REGIME, range(8), siblings) for siblings in (False, True))
    assert trees.ms < 0.95 * chains.ms and trees.tokens == chains.tokens == len(positions.matches)


def never_faster(played: Played, bound: Played) -> bool:
    return all(ms >= bound.by_sequence[sequence][1] - 1e-9 for sequence, (_, ms) in played.by_sequence.items())


@pytest.mark.parametrize("regime", [REGIME, FREE, STEPS], ids=lambda regime: regime.name)
def test_no_shape_is_faster(regime: Regime) -> None:
    positions = random_positions()
    bounds = {siblings: clairvoyant(positions, regime, range(8), siblings) for siblings in (False, True)}
    for name, make in SHAPES.items():
        played = play_shape(make(positions), positions, regime, range(8), 1)
        assert played.tokens == len(positions.matches)
        assert never_faster(played, bounds[name.startswith(("tree", "budget"))]), name


def ours(siblings: bool, per_level: bool) -> Callable[[Regime], Policy]:
    def make(regime: Regime) -> Policy:
        return ThroughputPolicy(Oracle(0.75), 0, regime.cost_model(), per_level=per_level, siblings=siblings)

    return make


PLAYED: dict[str, tuple[bool, Callable[[Regime], Policy]]] = {
    "tree": (True, lambda _: StaticTree(5, 3)),
    "speckv": (True, ours(True, True)),
    "speckv-step": (True, ours(True, False)),
    "speckv-chain": (False, ours(False, True)),
    "hf-default": (False, lambda _: make_peer("hf-default")),
    "bandit": (False, lambda _: make_peer("bandit")),
}


@pytest.mark.parametrize("name", PLAYED)
def test_no_policy_is_faster(name: str) -> None:
    siblings, make = PLAYED[name]
    positions = random_positions()
    for regime in (REGIME, FREE):
        played = play(make(regime), positions, regime, range(8))
        assert played.tokens == len(positions.matches)
        assert never_faster(played, clairvoyant(positions, regime, range(8), siblings))

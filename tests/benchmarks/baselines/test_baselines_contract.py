"""The peers' bounds, and what they may not know."""

from __future__ import annotations

import copy

import pytest
from futures import sees_the_future
from hypothesis import given
from hypothesis import strategies as st
from simulation import Oracle, World, draft, level, linear, play

from speckv.benchmarks.baselines import PEERS, make_peer
from speckv.controller.policy import Policy, Request, Round

EACH = ("plain", "fixed-16", *PEERS[PEERS.index("fixed-16") + 1 :])
"""One of each kind: the fixed ones are one class."""

STATEFUL = ("hf-default", "hf-heuristic", "sglang-ema", "bandit", "paper")


def peer(name: str) -> Policy:
    return make_peer(name, Oracle(0.8), level=1)


@pytest.mark.parametrize("name", EACH)
@given(
    rounds=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.floats(0, 12), st.floats(0, 1)), max_size=30)
)
def test_gamma_is_within_its_bounds_whatever_comes(name: str, rounds: list[tuple[int, int, float, float]]) -> None:
    """``draft`` holds every answer to the contract."""
    policy, request = peer(name), Request()
    for room, accepted, entropy, confidence in rounds:
        this = draft(policy, Round([request]), room, lambda _, own=(entropy, confidence): level(*own))
        assert 0 <= this.gamma <= room and this.gamma == len(this.levels) and this.siblings is None
        this.accepted = [min(accepted, this.gamma)]
        this.ranks = [1 if this.accepted[0] < this.gamma else 0]
        this.emitted, this.draft_ms, this.verify_ms = this.accepted[0] + 1, 30.0 * this.gamma, 100.0
        policy.observe(this)
        this.remember()


@pytest.mark.parametrize("name", EACH)
@given(seed=st.integers(0, 10_000), number=st.integers(0, 30), seen=st.integers(0, 8))
def test_none_sees_what_it_cannot_know(name: str, seed: int, number: int, seen: int) -> None:
    assert not sees_the_future(lambda _: peer(name), seed, number, seen)


@pytest.mark.parametrize("name", EACH)
def test_a_copy_learns_for_itself(name: str) -> None:
    world = World(0.7, 30.0, linear(100.0))
    policy, untouched = peer(name), peer(name)
    for one in (policy, untouched):
        play(one, world, 60)
    play(copy.deepcopy(policy), World(0.1, 300.0, linear(900.0)), 60)
    played, expected = play(policy, world, 60, seed=1), play(untouched, world, 60, seed=1)
    assert [this.gamma for this in played] == [this.gamma for this in expected]
    assert (len({this.gamma for this in expected}) > 1) <= (name in STATEFUL)

"""The replay: exact by hand, the same by looking up as by playing, and closed to a policy that peeks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
from replays import REGIME, TOKENS, StaticTree, branch, random_positions
from simulation import Oracle

from speckv.benchmarks.baselines import make_peer
from speckv.benchmarks.baselines.p_min import PMin
from speckv.benchmarks.baselines.svip import SVIP
from speckv.benchmarks.collect.traces import unfold
from speckv.benchmarks.replay.engine import Played, play, rounds
from speckv.benchmarks.replay.noise import NoisyCosts, noise
from speckv.benchmarks.replay.positions import Positions, Served
from speckv.benchmarks.replay.regimes import Measured, Regime
from speckv.benchmarks.replay.shapes import SHAPES, play_shape
from speckv.controller.cost import CostModel
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policies.throughput import ThroughputPolicy
from speckv.controller.policy import BEST, Policy, Round


def by_hand() -> Positions:
    """One sequence of 6 tokens and one of 3; runs match 3, 2, 1, 0, 2, 1 and 0, 1, 0 tokens."""
    first = [branch(0, 0.9) for _ in range(6)]
    first[3] = branch(2, 0.3, 0.3)
    second = [branch(1, 0.4, 0.4, 0.4), branch(0, 0.9), branch(9, 0.2)]
    return Positions([unfold("p", "code", 5, first, 4), unfold("q", "chat", 5, second, 4)], tokens=6)


def test_positions_by_hand() -> None:
    positions = by_hand()
    assert positions.matches.tolist() == [3, 2, 1, 0, 2, 1, 0, 1, 0]
    assert positions.room.tolist() == [5, 4, 3, 2, 1, 0, 5, 4, 3]
    assert (positions.starts.tolist(), positions.ends.tolist(), positions.depth) == ([0, 6], [6, 9], 4)
    assert positions.signals.shape == (9, 4, 1 + BEST) and np.isfinite(positions.signals).all()
    assert positions.signals[3, :2, 1].tolist() == pytest.approx([0.3, 0.3])
    at = np.array([0, 0, 1, 4, 4, 6, 8])
    accepted, ranks = positions.accepted(at, np.array([2, 4, 4, 2, 3, 1, 2]))
    assert accepted.tolist() == [2, 3, 2, 2, 2, 0, 0]
    assert ranks.tolist() == [0, 2, 2, 0, 0, 1, BEST]  # at 4 the sequence ends, and no rank counts beyond BEST


def test_places_are_filled_until_none_waits() -> None:
    positions = by_hand()
    served = Served(positions, [0, 1, 1], 2)
    assert (served.sequences, served.at.tolist()) == ([0, 1], [0, 6])
    assert served.advance(np.array([2, 3])) == [1] and served.full
    assert (served.sequences, served.at.tolist()) == ([0, 1], [2, 6])
    assert served.advance(np.array([4, 1])) == [] and not served.full


def test_every_place_is_kept_busy_with_all_texts() -> None:
    positions = random_positions()
    assert sorted(positions.order(1, 0)) == list(range(8)) != positions.order(1, 0) != positions.order(1, 1)
    assert sorted(positions.order(4, 0)) == sorted(2 * list(range(8)))


def totals(played: Played) -> tuple[object, ...]:
    sequences = {sequence: (tokens, round(ms, 6)) for sequence, (tokens, ms) in played.by_sequence.items()}
    return played.rounds, played.tokens, round(played.ms, 6), played.drafted, played.verified, sequences


def test_fixed_gamma_by_hand() -> None:
    played = play(FixedPolicy(2), by_hand(), REGIME, [0])
    # 0: two match, three tokens. 3: none matches, one. 4: room for one, which matches.
    expected = 10 * 2 + 103, 10 * 2 + 103, 10 * 1 + 102
    assert (played.rounds, played.tokens, played.drafted, played.verified, played.accepted) == (3, 6, 5, 5, 3)
    assert played.ms == pytest.approx(sum(expected)) and played.by_sequence == {0: [6, pytest.approx(sum(expected))]}


def test_siblings_by_hand() -> None:
    """At 3 the target's is the draft's third choice, at 6 its second, at 8 none of the first four."""
    played = [
        (this.accepted[0], this.ranks[0], emitted[0], this.verified)
        for this, _, emitted in rounds(StaticTree(2, 2), by_hand(), REGIME, [0, 1])
    ]
    # The fourth round: its sibling is right, and with the target's own it is at 8.
    assert played == [(2, 0, 3, 6), (0, 2, 2, 6), (0, 0, 1, 0), (0, 1, 2, 6), (0, BEST, 1, 6)]
    found = play(StaticTree(2, 2), by_hand(), REGIME, [0, 1])
    assert found.ms == pytest.approx(4 * (20 + 107) + 101) and found.tokens == 9
    assert play(StaticTree(2, 1), by_hand(), REGIME, [0]).rounds == 3  # the third choice is not there: as a chain
    at_each = {
        ranks: [emitted[0] for *_, emitted in rounds(StaticTree(2, ranks), by_hand(), REGIME, [1])]
        for ranks in ((1, 0), (0, 3))
    }
    assert at_each == {(1, 0): [2, 1], (0, 3): [1, 2]}  # its second choice is right at the first depth alone


def test_a_batch_waits_for_its_longest_and_stops_once_a_place_is_free() -> None:
    found = list(rounds(FixedPolicy(2), by_hand(), REGIME, [0, 1], batch=2))
    ((one, sequences, emitted), (other, _, _)) = found[:2]
    assert sequences == [0, 1] and emitted == [3, 1] and one.emitted == 4 and one.accepted == [2, 0]
    assert (one.draft_ms, one.verify_ms) == (20, 106) and one.verified == 4
    assert other.accepted == [0, 1] and len(found) == 2  # the second sequence has ended


def test_every_text_is_a_new_request() -> None:
    seen = [
        (this.requests[0], sequences[0]) for this, sequences, _ in rounds(FixedPolicy(2), by_hand(), REGIME, [0, 1, 0])
    ]
    runs = [
        sequence
        for before, (request, sequence) in zip([None, *seen], seen, strict=False)
        if before is None or request is not before[0]
    ]
    assert runs == [0, 1, 0]


def test_identical_requests_are_so_many_times_one() -> None:
    free = Regime("free", "fp16", "none", Measured({1: {1: 10.0}}), Measured({1: {1: 100.0}}))
    positions = random_positions(1)
    makers: list[Callable[[], Policy]] = [
        lambda: StaticTree(4, 2),
        SVIP,
        lambda: ours(True, free),
        lambda: ours(False, free),
    ]
    for make in makers:
        one = play(make(), positions, free, [0], 1, exact=True)
        all_five = play(make(), positions, free, [0] * 5, 5)
        assert (all_five.rounds, all_five.ms) == (one.rounds, pytest.approx(one.ms))
        assert all_five.tokens == 5 * one.tokens and all_five.verified == 5 * one.verified > 0


def ours(per_level: bool, regime: Regime = REGIME) -> ThroughputPolicy:
    return ThroughputPolicy(Oracle(0.75), 0, regime.cost_model(), per_level=per_level)


AS_POLICIES: dict[str, Callable[[], Policy]] = {
    **{f"fixed-{gamma}": lambda gamma=gamma: FixedPolicy(gamma) for gamma in (0, 1, 3, 8, 16)},  # type: ignore[misc]
    **{f"tree-{g}-{k}": lambda g=g, k=k: StaticTree(g, k) for g, k in ((1, 3), (4, 1), (8, 2))},  # type: ignore[misc]
    "plain": lambda: FixedPolicy(0),
    "p-min": PMin,
    "svip": SVIP,
}


@pytest.mark.parametrize("name", AS_POLICIES)
def test_looking_up_is_playing(name: str) -> None:
    positions = random_positions()
    order = positions.order(1, 3)
    shape = SHAPES[name](positions)
    assert totals(play_shape(shape, positions, REGIME, order, 1)) == totals(
        play(AS_POLICIES[name](), positions, REGIME, order)
    )


@pytest.mark.parametrize("name", ["fixed-3", "tree-4-1"])
def test_looking_up_is_playing_in_a_batch_too(name: str) -> None:
    """Of sequences that end before they have the most tokens they may have, where requests' rounds would be cut."""
    whole = random_positions(6)
    positions = copy.copy(whole)
    positions.room = whole.room + 20
    order = positions.order(3, 0)
    shape = SHAPES[name](positions)
    played = play(AS_POLICIES[name](), positions, REGIME, order, 3)
    assert totals(play_shape(shape, positions, REGIME, order, 3)) == totals(played)


@pytest.mark.parametrize("nodes", [8, 16])
def test_a_budget_takes_the_most_probable_nodes(nodes: int) -> None:
    positions = random_positions()
    shape = SHAPES[f"budget-{nodes}"](positions)
    for at in range(0, len(positions.matches), 7):
        best = positions.signals[at, :, 1:]
        reach = np.concatenate(([1.0], np.cumprod(best[:, 0])))
        values = [(reach[depth] * best[depth, rank], depth, rank) for depth in range(len(best)) for rank in range(BEST)]
        taken = sorted(values, key=lambda one: -one[0])[:nodes]
        spine = min(int(positions.room[at]), sum(rank == 0 for _, _, rank in taken))
        assert shape.gammas[at] == spine
        assert shape.verified[at] == spine + sum(rank > 0 and depth < spine for _, depth, rank in taken)


def peeks(make: Callable[[Positions], Policy]) -> bool:
    """Whether a policy decides otherwise when only what it could not have seen yet is changed."""
    positions = random_positions(2)
    places, made, at = [], [], 0
    for this, _, emitted in rounds(make(positions), positions, REGIME, [0, 1]):
        places.append(at)
        made.append((len(this.levels), this.gamma, this.verified))
        at += emitted[0]
    for number, (at, (drafted, *_)) in enumerate(zip(places, made, strict=True)):
        changed = copy.copy(positions)
        changed.signals = positions.signals.copy()
        generator = np.random.default_rng(number)
        changed.signals[at, drafted:] = generator.dirichlet(np.ones(5), positions.depth - drafted)
        changed.signals[at + 1 :] = generator.dirichlet(np.ones(5), changed.signals[at + 1 :].shape[:2])
        changed.matches, changed.ranks = positions.matches.copy(), positions.ranks.copy()
        changed.matches[at + 1 :], changed.ranks[at + 1 :] = 0, 1
        again = rounds(make(changed), changed, REGIME, [0, 1])
        if [(len(this.levels), this.gamma, this.verified) for this, *_ in again][: number + 1] != made[: number + 1]:
            return True
    return False


class Peeker(Policy):
    """Drafts as long as the trace's next confidence, which nobody has seen yet, is high."""

    per_level = True

    def __init__(self, positions: Positions) -> None:
        self.positions, self.at = positions, 0

    def begin(self, this: Round, room: int) -> int:
        return room

    def deepen(self, this: Round) -> int:
        ahead = self.positions.signals[self.at, :, 1]
        return len(this.levels) + (len(this.levels) < len(ahead) and ahead[len(this.levels)] > 0.5)

    def observe(self, this: Round) -> None:
        self.at += this.emitted


def test_a_policy_that_peeks_is_found_out() -> None:
    assert peeks(Peeker)


ADAPTIVE = ("hf-default", "hf-heuristic", "p-min", "svip", "sglang-ema", "bandit", "paper")


@pytest.mark.parametrize("name", [*ADAPTIVE, "speckv", "speckv-step"])
def test_no_policy_peeks(name: str) -> None:
    assert not peeks(lambda _: ours(name == "speckv") if "speckv" in name else make_peer(name, Oracle(0.75)))


def test_a_policy_is_shown_copies() -> None:
    positions = random_positions(1)
    before = positions.signals.copy()
    for this, *_ in rounds(FixedPolicy(3), positions, REGIME, [0]):
        for level in this.levels:
            level[:] = 7.0
    assert (positions.signals == before).all() and positions.room[0] == TOKENS - 1


def test_noise_is_told_and_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr(CostModel, "observe", lambda self, this: told.append(this.draft_ms + this.verify_ms))

    class Listening(FixedPolicy):
        def __init__(self, cost: CostModel) -> None:
            super().__init__(2)
            self.cost = cost

        def observe(self, this: Round) -> None:
            self.cost.observe(this)

    positions, true = random_positions(4), REGIME.cost_model()
    quiet, noisy = (
        play(Listening(cost), positions, REGIME, range(4)) for cost in (true, NoisyCosts(true.costs, seed=1))
    )
    assert quiet == noisy
    without, with_it = told[: quiet.rounds], told[quiet.rounds :]
    assert sum(without) == pytest.approx(quiet.ms) and sum(with_it) != pytest.approx(quiet.ms, rel=1e-3)


def test_noise_is_as_was_measured() -> None:
    logs = np.log(list(islice(noise(3), 20_000)))
    assert (logs.std(axis=0) > 0.10).all() and (logs.std(axis=0) < 0.21).all()
    assert ((logs > np.log(1.5)).mean(axis=0) > 0.01).all() and ((logs > np.log(1.5)).mean(axis=0) < 0.045).all()
    slow = logs.mean(axis=1)
    assert np.corrcoef(slow[:-4], slow[4:])[0, 1] > 0.4, "a slow machine stays slow for a while"

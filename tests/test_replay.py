"""Replay: exact by hand, never better than the clairvoyant bound, and closed to a policy that peeks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulation import Oracle

from speckv.benchmarks.peers import PEERS, make_peer
from speckv.benchmarks.ratios import Timed, rows
from speckv.benchmarks.replay.engine import clairvoyant, play, rounds
from speckv.benchmarks.replay.regimes import Regime, load_regimes
from speckv.benchmarks.traces import Best, Branch, Trace, unfold
from speckv.controller.errors import SpecKVError
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policies.throughput import ThroughputPolicy
from speckv.controller.policy import Policy, Round

REGIME = Regime("test", "fp16", "none", 10.0, tuple(100.0 + rows for rows in range(21)))
TOKENS = 24


def best(confidence: float) -> Best:
    return (confidence, *[min(confidence, (1 - confidence) / 3)] * 3)


def random_trace(seed: int, name: str = "p", tokens: int = TOKENS, depth: int = 20) -> Trace:
    draws = random.Random(seed)
    branches = []
    for place in range(tokens):
        matched = draws.random() < 0.75
        length = 1 if matched else max(1, min(depth, TOKENS - place - 1))
        signals = tuple(draws.uniform(0.1, 1.0) for _ in range(length))
        branches.append(Branch(0 if matched else 1, tuple(2 * (1 - one) for one in signals), tuple(map(best, signals))))
    return unfold(name, "code", 5, branches, depth)


def test_fixed_gamma_by_hand() -> None:
    branches = [Branch(0, (0.1,), (best(0.9),)) for _ in range(6)]
    branches[3] = Branch(1, (1.0, 1.0), (best(0.3), best(0.3)))
    trace = unfold("p", "code", 5, branches, 4)  # matches 3, 2, 1, 0, 2, 1
    (played,) = play(FixedPolicy(2), [trace], REGIME, tokens=6)
    # 0: two match, three tokens. 3: none matches, one. 4: room for one, which matches.
    assert (played.drafted, played.accepted) == ([2, 2, 1], [2, 0, 1])
    assert played.tokens == 6 and played.ms == pytest.approx(5 * 10 + 102 + 102 + 101)


SHORT = 9


def brute_force(trace: Trace, place: int = 0) -> float:
    if place >= trace.tokens:
        return 0.0
    longest = min(int(trace.lengths[place]), SHORT - place - 1)
    return min(
        REGIME.step_ms(gamma) + brute_force(trace, place + min(gamma, int(trace.matches[place])) + 1)
        for gamma in range(longest + 1)
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_is_the_least_of_all_choices(seed: int) -> None:
    trace = random_trace(seed, tokens=SHORT)
    assert clairvoyant([trace], REGIME, SHORT)[0].ms == pytest.approx(brute_force(trace))


def policies() -> dict[str, Callable[[], Policy]]:
    names = [name for name in PEERS if name != "paper"]
    made: dict[str, Callable[[], Policy]] = {name: lambda name=name: make_peer(name) for name in names}  # type: ignore[misc]
    return made | {"speckv": lambda: ThroughputPolicy(Oracle(0.75), 0, REGIME.cost_model(), 20)}


@pytest.mark.parametrize("name", [name for name in policies() if not name.startswith("fixed-") or name == "fixed-3"])
def test_no_policy_is_faster_than_the_bound(name: str) -> None:
    traces = [random_trace(seed) for seed in range(8)]
    for played, bound in zip(
        play(policies()[name](), traces, REGIME, TOKENS), clairvoyant(traces, REGIME, TOKENS), strict=True
    ):
        assert played.ms >= bound.ms - 1e-9
        assert sum(played.accepted) + len(played.drafted) >= played.tokens


def scrambled(trace: Trace, place: int, drafted: int) -> Trace:
    """``trace`` with other signals wherever a policy , ``drafted`` tokens into ``place``, cannot have looked."""
    generator = np.random.default_rng(1)
    entropies, best = trace.entropies.copy(), trace.best.copy()
    for later in range(place, trace.tokens):
        first = drafted if later == place else 0
        best[later, first:] = generator.random(best[later, first:].shape)
        entropies[later, first:] = 5 * generator.random(entropies.shape[1] - first)
    return replace(trace, entropies=entropies, best=best)


def peeks(make: Callable[[Trace], Policy]) -> bool:
    """Whether a policy decides otherwise when only what it could not have seen yet is changed."""
    trace = random_trace(3)
    places, place = [], 0
    for this in rounds(make(trace), trace, TOKENS, REGIME):
        places.append((place, this.drafted))
        place += this.emitted
    for number, (place, drafted) in enumerate(places):
        changed = scrambled(trace, place, drafted)
        played = list(rounds(make(changed), changed, TOKENS, REGIME))
        if [one.drafted for one in played[: number + 1]] != [drafted for _, drafted in places[: number + 1]]:
            return True
    return False


class Peeker(Policy):
    """Drafts as long as the trace's next confidence, which nobody has seen yet, is high."""

    per_token = True

    def __init__(self, trace: Trace) -> None:
        self.trace, self.place = trace, 0

    def begin(self, room: int) -> int:
        return room

    def more(self, entropies: Sequence[float], confidences: Sequence[float]) -> bool:
        ahead = self.trace.confidences[self.place]
        return len(confidences) < len(ahead) and float(ahead[len(confidences)]) > 0.5

    def observe(self, outcome: Round) -> None:
        self.place += outcome.emitted


def test_a_policy_that_peeks_is_found_out() -> None:
    assert peeks(Peeker)


@pytest.mark.parametrize("name", [name for name in policies() if not name.startswith("fixed-") or name == "fixed-3"])
def test_no_policy_peeks(name: str) -> None:
    assert not peeks(lambda _: policies()[name]())


def test_ratios_by_hand() -> None:
    tokens = np.array([10.0, 30.0])
    timed = {
        "plain": Timed(tokens, np.array([100.0, 300.0])),
        "fixed-2": Timed(tokens, np.array([50.0, 300.0])),
        "speckv": Timed(tokens, np.array([50.0, 150.0])),
        "clairvoyant": Timed(tokens, np.array([40.0, 120.0])),
    }
    found = {(row["policy"], row["task"]): row for row in rows(timed, ["code", "chat"], ("plain", "fixed-2"))}
    ours = found["speckv", "all"]
    assert (ours["vs_plain"], ours["vs_best_fixed"]) == pytest.approx((2.0, 1.75)) and ours["best_fixed"] == "fixed-2"
    assert ours["vs_hf_default"] is None and ours["vs_fixed4"] is None
    assert ours["oracle_share"] == pytest.approx((40 / 200 - 40 / 350) / (40 / 160 - 40 / 350))
    assert found["speckv", "chat"]["vs_best_fixed"] == pytest.approx(2.0)
    assert found["speckv", "code"]["vs_best_fixed"] == pytest.approx(1.0)
    low, high = ours["ci"]["vs_best_fixed"]
    assert (low, high) == pytest.approx((1.0, 2.0))  # both prompts the first; both the second


def test_the_shipped_regimes_are_readable() -> None:
    regimes = load_regimes()
    assert {"paper-fp16", "paper-int8", "paper-nf4", "8b70b", "here-bf16", "here-int8", "here-nf4"} == set(regimes)
    assert regimes["paper-fp16"].step_ms(4) == pytest.approx(20.2 + 4 * 10.5)
    for regime in regimes.values():
        assert list(regime.verify_ms) == sorted(regime.verify_ms) and regime.source


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a": {}}', '{"a": {"compression": "fp16", "trace": "t", "draft_ms": 1}}']
)
def test_a_broken_regimes_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "regimes.json"
    path.write_text(text)
    with pytest.raises(SpecKVError, match=r"regimes.json: not a regimes file"):
        load_regimes(path)

"""What better predictions would be worth: hints add nothing when they are noise, and all when they are right."""

from __future__ import annotations

import pytest
from test_replay import REGIME, TOKENS, random_trace

from speckv.benchmarks.headroom import headroom
from speckv.benchmarks.replay.engine import play
from speckv.controller.policies.throughput import ThroughputPolicy
from speckv.integrations.runtime import Controller

TRACES = [random_trace(seed, f"p{seed}") for seed in range(24)]


def test_hints_that_are_noise_are_the_shipped_policy() -> None:
    ours = ThroughputPolicy(Controller.load(), 0, REGIME.cost_model())
    # The same texts in the same order.
    (found,) = headroom(REGIME, TRACES[:1], TOKENS, (0.5,))
    (played,) = play(ours, TRACES[:1], REGIME, TOKENS)
    assert found["tokens_per_s"] == pytest.approx(1e3 * played.tokens / played.ms)


def test_better_hints_are_worth_more_and_never_more_than_the_bound() -> None:
    found = headroom(REGIME, TRACES, TOKENS, (0.5, 0.8, 0.999))
    losses = [one["log_loss"] for one in found]
    shares = [one["oracle_share"] for one in found]
    assert losses == sorted(losses, reverse=True) and shares == sorted(shares)
    assert 0.5 < shares[-1] <= 1

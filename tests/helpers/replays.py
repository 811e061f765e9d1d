"""Traces that are made up, and what is played on them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from speckv.benchmarks.collect.traces import Best, Branch, Trace, unfold
from speckv.benchmarks.replay.positions import Positions
from speckv.benchmarks.replay.regimes import Measured, Regime
from speckv.controller.policy import SIBLINGS, Policy, Round, Siblings

TOKENS, DEPTH = 24, 20
REGIME = Regime("test", "fp16", "none", Measured({1: {1: 10.0}}), Measured({1: {1: 101.0, 2: 102.0}}))
"""A level takes 10 ms, a verify 100 and one for each row."""


def best(confidence: float) -> Best:
    rest = 1 - confidence
    return (confidence, *(min(confidence, share * rest) for share in (0.5, 0.3, 0.1)))


def branch(rank: int, *confidences: float) -> Branch:
    return Branch(rank, tuple(2 * (1 - one) for one in confidences), tuple(map(best, confidences)))


def random_branches(seed: int, tokens: int = TOKENS, depth: int = DEPTH, most: int = TOKENS) -> list[Branch]:
    """Of a text of so many ``tokens``, which may have ``most``; three in four of the draft's are right."""
    draws = random.Random(seed)
    made = []
    for place in range(tokens):
        rank = 0 if draws.random() < 0.75 else draws.randint(1, 6)
        length = 1 if rank == 0 else max(1, min(depth, most - place - 1))
        made.append(branch(rank, *(draws.uniform(0.1, 1.0) for _ in range(length))))
    return made


def random_trace(seed: int, tokens: int = TOKENS, depth: int = DEPTH, most: int = TOKENS) -> Trace:
    return unfold(f"p{seed}", ("code", "chat")[seed % 2], 5, random_branches(seed, tokens, depth, most), depth)


def random_positions(count: int = 8, tokens: int = TOKENS) -> Positions:
    """Every third text ends early."""
    return Positions([random_trace(seed, tokens - 7 * (seed % 3 == 2)) for seed in range(count)], tokens)


def entry(seed: int) -> dict[str, Any]:
    """As a trace file holds it."""
    of = [asdict(one) for one in random_branches(seed)]
    return {"prompt_id": f"p{seed}", "task": ("code", "chat")[seed % 2], "prompt_tokens": 5, "branches": of}


class StaticTree(Policy):
    """Always γ levels with the siblings of the first so many ranks at each."""

    asks = False

    def __init__(self, gamma: int, siblings: Sequence[int] | int) -> None:
        self.gamma = gamma
        self.siblings = [siblings] * gamma if isinstance(siblings, int) else list(siblings)

    def begin(self, this: Round, room: int) -> int:
        return min(self.gamma, room)

    def choose(self, this: Round) -> Siblings:
        chosen = np.zeros((this.size, this.gamma, SIBLINGS), dtype=np.bool_)
        for depth in range(this.gamma):
            chosen[:, depth, : self.siblings[depth]] = True
        return chosen

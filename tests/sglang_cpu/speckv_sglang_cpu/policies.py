"""Policies that tests force upon a server: ``SPECKV_TEST_POLICY`` is ``random`` (every width, every round) or ``nan``."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

from speckv.controller.policies.batch import BatchPolicy, Summary

NAME = "SPECKV_TEST_POLICY"


class RandomBatchPolicy(BatchPolicy):
    """γ drawn from 0 … ``most`` every round, a random stop after each token, prompts read or not: all there is."""

    per_token = True

    def __init__(self, most: int, seed: int) -> None:
        self.most, self.random = most, random.Random(seed)

    def begin(self, size: int, behind: int, previous: Sequence[Summary | None]) -> int:
        return self.random.randint(0, self.most)

    def first(self, entropies: Sequence[Sequence[float]], confidences: Sequence[Sequence[float]]) -> bool:
        assert all(0 < p[0] <= 1.0001 for p in confidences) and all(h[0] > -1e-3 for h in entropies)
        return self.random.random() < 0.9

    def more(self, entropies: Sequence[Sequence[float]], confidences: Sequence[Sequence[float]]) -> bool:
        assert all(len(h) == len(p) >= 1 for h, p in zip(entropies, confidences, strict=True))
        return self.random.random() < 0.8

    def warm(self, size: int) -> bool:
        return self.random.random() < 0.6


def register() -> None:
    if not (wanted := os.environ.get(NAME)):
        return
    from speckv.integrations.sglang import decisions, draft_worker

    if wanted == "random":
        decisions.build_policy = lambda config, controller, level, sizes, max_gamma, per_token: RandomBatchPolicy(
            max_gamma, int(os.environ.get("SPECKV_TEST_SEED", "0"))
        )
    elif wanted == "nan":  # every signal that the device gives
        genuine = draft_worker.pack
        draft_worker.pack = lambda tokens, logits: genuine(tokens, logits) * float("nan")
    else:
        raise ValueError(f"{NAME}={wanted}")

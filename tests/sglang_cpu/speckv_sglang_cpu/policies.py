"""What tests do to a running server's decisions. ``SPECKV_TEST_STEER`` names a file that holds one of

real     the configured policy
random   every width in every round, prompts read by the draft or not
fixed    γ = 4 in every round
resting  γ = 4, but the draft rests for five rounds of six and reads no prompt
cold     like resting, without catching up: what SGLang's own switch does
nan      the configured policy, made to draft in every round, while all signals are NaN
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speckv.controller.policies.batch import BatchPolicy, BatchRound, Summary

NAME = "SPECKV_TEST_STEER"
Lists = Sequence[Sequence[float]]


class Steered(BatchPolicy):
    """Does as the file says, which is read once a round; ``genuine`` is the configured policy."""

    def __init__(self, genuine: BatchPolicy, most: int, file: Path) -> None:
        self.genuine, self.most, self.file = genuine, most, file
        self.per_token = genuine.per_token
        self.random = random.Random(0)
        self.rounds = 0
        self.how = "real"
        self.poisoned = False

    @property
    def fallbacks(self) -> int:  # type: ignore[override]
        return self.genuine.fallbacks

    @property
    def asks(self) -> bool:
        return self.how in ("real", "nan")

    def begin(self, size: int, behind: int, previous: Sequence[Summary | None]) -> int:
        self.how = self.file.read_text().strip()
        self.rounds += 1
        self.poisoned |= self.how == "nan"
        if self.asks:
            gamma = self.genuine.begin(size, behind, previous)
            return gamma or (self.most if self.how == "nan" else 0)
        if self.how == "random":
            return self.random.randint(0, self.most)
        return 4 if self.how == "fixed" or self.rounds % 6 == 0 else 0

    def first(self, entropies: Lists, confidences: Lists) -> bool:
        if self.asks:
            return self.genuine.first(entropies, confidences)
        # A NaN of the mode nan stays with its request until the draft's next forward.
        assert self.poisoned or (all(0 < p[0] <= 1.0001 for p in confidences) and all(h[0] > -1e-3 for h in entropies))
        return self.how != "random" or self.random.random() < 0.9

    def more(self, entropies: Lists, confidences: Lists) -> bool:
        if self.asks:
            return self.genuine.more(entropies, confidences)
        assert all(len(h) == len(p) >= 1 for h, p in zip(entropies, confidences, strict=True))
        return self.how != "random" or self.random.random() < 0.8

    def warm(self, size: int, requests: int = 1, rows: int = 0) -> bool:
        if self.asks:
            return self.genuine.warm(size, requests, rows)
        return self.how == "fixed" or (self.how == "random" and self.random.random() < 0.6)

    def read(self, rows: int, ms: float) -> None:
        self.genuine.read(rows, ms)

    def ended(self, tokens: int) -> None:
        self.genuine.ended(tokens)

    def observe(self, outcome: BatchRound) -> None:
        if self.asks:
            self.genuine.observe(outcome)


def register() -> None:
    if not (path := os.environ.get(NAME)):
        return
    from speckv.integrations.sglang import decisions, draft_worker

    file = Path(path)
    genuine_policy, genuine_pack = decisions.build_policy, draft_worker.pack

    def steered(config: Any, controller: Any, level: int, sizes: Any, max_gamma: int, per_token: bool) -> BatchPolicy:
        policy = genuine_policy(config, controller, level, sizes, max_gamma, per_token)
        return Steered(policy, max_gamma, file)

    def pack(tokens: Any, logits: Any) -> Any:
        packed = genuine_pack(tokens, logits)
        if file.read_text().strip() == "nan":
            packed[:, 1:] = float("nan")
        return packed

    genuine_catch_up = draft_worker.SpecKVDraftWorker._catch_up

    def catch_up(self: Any, batch: Any) -> None:
        if self.decisions.policy.how != "cold":
            genuine_catch_up(self, batch)

    decisions.build_policy = steered
    draft_worker.pack = pack
    draft_worker.SpecKVDraftWorker._catch_up = catch_up

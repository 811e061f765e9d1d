"""A pair of models that exists only as numbers: to test what a policy earns without running one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from speckv.controller.policy import Policy, Round
from speckv.controller.records import Row, make_row

Verify = Callable[[int], float]


def linear(verify_ms: float, row_ms: float = 0.0) -> Verify:
    """Verify time by rows: ``verify_ms`` for one, ``row_ms`` for each further one."""
    return lambda rows: verify_ms + (rows - 1) * row_ms


@dataclass(frozen=True)
class World:
    """Every drafted token is accepted with ``acceptance``, independently; times are exact."""

    acceptance: float
    draft_ms: float
    verify_ms: Verify

    def fixed(self, gamma: int) -> float:
        """Tokens per ms, in the long run, of always drafting ``gamma``."""
        tokens = sum(self.acceptance**count for count in range(gamma + 1))
        return tokens / (gamma * self.draft_ms + self.verify_ms(gamma + 1))

    def best_fixed(self, max_gamma: int = 8) -> float:
        """Tokens per ms of the best fixed γ, 0 among them, in hindsight."""
        return max(self.fixed(gamma) for gamma in range(max_gamma + 1))

    @property
    def plain(self) -> float:
        return self.fixed(0)

    def slower(self, draft: float = 1.0, verify: float = 1.0) -> World:
        """The same pair on a machine that takes so many times longer."""
        return replace(self, draft_ms=self.draft_ms * draft, verify_ms=lambda rows: self.verify_ms(rows) * verify)


class Oracle:
    """A controller (``controller.policies.learned.Controller``) told a world's acceptance, rightly or not."""

    def __init__(self, acceptance: float) -> None:
        self.acceptance = acceptance
        self.asked: list[tuple[tuple[float, ...], int, int]] = []

    def survival(self, signals: Sequence[float], level: int, drafted: int) -> float:
        self.asked.append((tuple(signals), level, drafted))
        return float(self.acceptance ** (drafted + 1))

    def acceptance_rates(
        self, signals: Sequence[float], level: int, gammas: Sequence[int]
    ) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        self.asked.append((tuple(signals), level, 0))
        expected = [sum(self.acceptance**count for count in range(1, gamma + 1)) for gamma in gammas]
        return np.array([tokens / max(1, gamma) for tokens, gamma in zip(expected, gammas, strict=True)], "f4")


def drafts(policy: Policy, room: int, signals: Callable[[int], tuple[float, float]]) -> Round:
    """A round up to its verify, as a framework's loop runs it; ``signals(i)`` are token i's."""
    this = Round(position=0)
    gamma = policy.begin(room)
    assert 0 <= gamma <= room
    while this.drafted < gamma:
        entropy, confidence = signals(this.drafted)
        this.entropies.append(entropy)
        this.confidences.append(confidence)
        if policy.per_token and this.drafted < gamma and not policy.more(this.entropies, this.confidences):
            break
    return this


def play(policy: Policy, world: World, rounds: int, seed: int = 0, room: int = 1000) -> list[Round]:
    """``rounds`` rounds of ``policy`` in ``world``, observed by it one after the other."""
    draws = random.Random(seed)
    played = []
    policy.start()
    for _ in range(rounds):
        this = drafts(policy, room, lambda _: (1.0 - world.acceptance, world.acceptance))
        while this.accepted < this.drafted and draws.random() < world.acceptance:
            this.accepted += 1
        this.emitted = this.accepted + 1
        this.draft_ms = this.drafted * world.draft_ms
        this.verify_ms = world.verify_ms(this.drafted + 1)
        policy.observe(this)
        played.append(this)
    return played


def earned(world: World, rounds: Sequence[Round]) -> float:
    """Expected tokens per ms of the γ that were chosen: the rate without the luck of the draws."""
    tokens = sum(sum(world.acceptance**count for count in range(this.drafted + 1)) for this in rounds)
    return tokens / milliseconds(rounds)


def milliseconds(rounds: Sequence[Round]) -> float:
    return sum(this.draft_ms + this.verify_ms for this in rounds)


def make_synthetic_rows(prompts: int, steps: int = 8, seed: int = 0) -> list[Row]:
    """Step records in which a token is accepted with its own confidence as probability.

    Prompts differ in ease, so that a round's signals tell something about the next.
    """
    draws = random.Random(seed)
    rows = []
    for number in range(prompts):
        gamma = (2, 4, 6, 8)[number % 4]
        run = {
            "compression": ("fp16", "int8", "nf4")[number % 3],
            "gamma": gamma,
            "task": ("code", "math", "chat", "summarization")[number % 4],
            "prompt_id": f"prompt-{number:02d}",
            "batch": 1,
            "target": "a-target",
            "draft": "a-draft",
            "target_dtype": "float32",
            "draft_dtype": "float32",
            "versions": "{}",
        }
        ease = math.exp(draws.uniform(-1.0, 3.0))
        for step in range(steps):
            this = Round(position=10 + step, draft_ms=3.0 * gamma, verify_ms=50.0 + gamma)
            for _ in range(gamma):
                confidence = draws.betavariate(ease, 1.0)
                this.confidences.append(confidence)
                this.entropies.append(3.0 * (1.0 - confidence) + 0.1 * draws.random())
            while this.accepted < gamma and draws.random() < this.confidences[this.accepted]:
                this.accepted += 1
            this.emitted = this.accepted + 1
            rows.append(make_row(this, run, step))
    return rows

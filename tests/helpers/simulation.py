"""A pair of models that exists only as numbers: to test what a policy earns without running one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from speckv.controller.policy import BEST, SIBLINGS, Level, Policy, Request, Round

Verify = Callable[[int], float]


def linear(verify_ms: float, row_ms: float = 0.0) -> Verify:
    """Verify time by rows: ``verify_ms`` for one, ``row_ms`` for each further one."""
    return lambda rows: verify_ms + (rows - 1) * row_ms


def level(entropies: Sequence[float] | float, best: Sequence[float] | float = 0.5) -> Level:
    """Signals of one drafted level; of one request, or of as many as there are ``entropies``."""
    column = np.atleast_1d(np.asarray(entropies, dtype=float))
    rows = np.zeros((len(column), 1 + BEST))
    rows[:, 0] = column
    given = np.atleast_1d(np.asarray(best, dtype=float))
    rows[:, 1 : 1 + len(given)] = given
    return rows


def timed(levels: int, draft_ms: float | None, verify_ms: float | None, **more: Any) -> Round:
    """A finished round of one request, unless ``more`` says otherwise; ``draft_ms`` is that of the whole round."""
    size, siblings = more.pop("size", 1), more.pop("siblings", 0)
    settings: dict[str, Any] = {"gamma": levels, "resting": not levels, **more}
    requests = [Request() for _ in range(size)]
    this = Round(requests, levels=[level([0.1] * size)] * levels, draft_ms=draft_ms, verify_ms=verify_ms, **settings)
    if siblings:
        this.siblings = np.arange(size * this.gamma * SIBLINGS).reshape(size, this.gamma, SIBLINGS) < siblings
    return this


@dataclass(frozen=True)
class World:
    """Every drafted token is accepted with ``acceptance``, independently; times are exact.

    Where one is rejected, the sibling of rank r is right with ``right[r - 1]``. The draft's probabilities say all that.
    ``verify_ms`` is by rows of all ``size`` requests. ``extend_ms`` (by rows) is there in a server. The host takes
    ``host_ms`` around a round in which the draft rests, and around one in which it drafts. The first ``held`` requests
    are decoded plainly.
    """

    acceptance: float
    draft_ms: float
    verify_ms: Verify
    right: tuple[float, ...] = ()
    size: int = 1
    extend_ms: Verify | None = None
    host_ms: tuple[float, float] = (0.0, 0.0)
    held: int = 0

    def level(self) -> Level:
        shares = ((1.0 - self.acceptance) * share for share in self.right)
        return level([1.0 - self.acceptance] * self.size, (self.acceptance, *shares))

    def fixed(self, gamma: int, siblings: int = 0) -> float:
        """Tokens per ms of all requests, in the long run, of always drafting ``gamma`` levels with so many siblings."""
        return self.expected(gamma, gamma * siblings) / self._ms(gamma, gamma * siblings * self.size)

    def expected(self, gamma: int, siblings: int = 0) -> float:
        """Tokens of all requests; ``siblings`` of each, γ times as many as there are at each level."""
        spine = sum(self.acceptance**count for count in range(gamma + 1))
        mended = sum(self.right[: siblings // gamma]) if gamma else 0.0
        return self.held + (self.size - self.held) * (spine + (1.0 - self.acceptance**gamma) * mended)

    def best_fixed(self, max_gamma: int = 20) -> float:
        """Tokens per ms of the best fixed γ, 0 among them, in hindsight."""
        return max(self.fixed(gamma) for gamma in range(max_gamma + 1))

    def best_tree(self, max_gamma: int = 20) -> float:
        """Of the best γ with as many siblings at every level."""
        return max(self.fixed(gamma, beside) for gamma in range(max_gamma + 1) for beside in range(len(self.right) + 1))

    @property
    def plain(self) -> float:
        return self.size / self._ms(0, 0)

    def slower(self, draft: float = 1.0, verify: float = 1.0) -> World:
        """The same pair on a machine that takes so many times longer."""
        return replace(self, draft_ms=self.draft_ms * draft, verify_ms=lambda rows: self.verify_ms(rows) * verify)

    def end(self, this: Round, draws: random.Random) -> None:
        """What the target says of a drafted round, and what that took."""
        for row in range(this.size):
            if row in this.plain:
                this.accepted.append(0)
                this.ranks.append(0)
                continue
            accepted = 0
            while accepted < this.gamma and draws.random() < self.acceptance:
                accepted += 1
            this.accepted.append(accepted)
            this.ranks.append(self._rank(draws) if accepted < this.gamma else 0)
        this.emitted = sum(this.accepted) + this.size + sum(this.sibling_hits)
        drafted = len(this.levels)
        this.draft_ms = self.draft_ms * (drafted if self.extend_ms is None else max(0, drafted - 1))
        this.verify_ms = self.verify_ms(this.size + this.verified)
        if self.extend_ms is not None:
            this.extend_ms = 0.0 if this.resting else self.extend_ms(this.size * (this.gamma + 1))

    def _rank(self, draws: random.Random) -> int:
        drawn = draws.random()
        for place, share in enumerate(self.right):
            drawn -= share
            if drawn < 0:
                return place + 1
        return BEST

    def _ms(self, gamma: int, siblings: int) -> float:
        verify = self.verify_ms(self.size * (1 + gamma) + siblings) + self.host_ms[gamma > 0]
        if self.extend_ms is None:
            return gamma * self.draft_ms + verify
        return verify + ((gamma - 1) * self.draft_ms + self.extend_ms(self.size * (gamma + 1)) if gamma else 0.0)


class Oracle:
    """A controller (``controller.policies.learned.Controller``) told a world's acceptance, rightly or not.

    It says ``bias`` times what that makes of every survival.
    """

    def __init__(self, acceptance: float, bias: float = 1.0) -> None:
        self.acceptance, self.bias = acceptance, bias

    def survival(self, prefixes: np.ndarray[Any, Any], further: Sequence[int]) -> np.ndarray[Any, Any]:
        assert prefixes.shape[1] == 7 and prefixes.dtype == np.float32
        depths = prefixes[:, 6:].astype(float) + np.array(further)
        return np.asarray(np.minimum(1.0, self.bias * self.acceptance**depths), dtype=np.float32)

    def acceptance_rates(self, signals: Sequence[float], level: int, gammas: Sequence[int]) -> np.ndarray[Any, Any]:
        tokens = [sum(self.acceptance**count for count in range(1, gamma + 1)) for gamma in gammas]
        return np.array([of / max(1, gamma) for of, gamma in zip(tokens, gammas, strict=True)], dtype=np.float32)


def draft(policy: Policy, this: Round, room: int, levels: Callable[[int], Level]) -> Round:
    """``this`` round up to its verify, as a loop runs it, held to the contract; ``levels(i)`` are level i's signals."""
    most = wanted = policy.begin(this, room)
    assert type(most) is int and 0 <= most <= room
    this.resting = most == 0
    while len(this.levels) < wanted:
        this.levels.append(levels(len(this.levels)))
        if policy.asks and (policy.per_level or len(this.levels) == 1):
            asked = policy.deepen(this)
            # A level further back may not be left out: whether it was would depend on what was drawn after it.
            assert type(asked) is int and asked >= len(this.levels) - 1
            wanted = min(most, asked)
    this.gamma = min(wanted, len(this.levels))
    this.siblings = policy.choose(this) if this.gamma else None
    if this.siblings is not None:
        assert this.siblings.shape == (this.size, this.gamma, SIBLINGS) and this.siblings.dtype == np.bool_
    return this


def play(policy: Policy, world: World, rounds: int, seed: int = 0, room: int = 1000) -> list[Round]:
    """``rounds`` rounds of ``policy`` in ``world``, observed by it one after the other, of one long text each."""
    draws = random.Random(seed)
    requests, plain = [Request() for _ in range(world.size)], frozenset(range(world.held))
    played: list[Round] = []
    for _ in range(rounds):
        this = draft(policy, Round(requests, plain=plain), room, lambda _: world.level())
        if played and any(world.host_ms):
            this.after_rest = played[-1].resting
            this.before_ms = world.host_ms[not this.after_rest]
        world.end(this, draws)
        policy.observe(this)
        this.remember()
        played.append(this)
    return played


def earned(world: World, rounds: Sequence[Round]) -> float:
    """Expected tokens per ms of the γ and siblings that were chosen: the rate without the luck of the draws."""
    tokens = 0.0
    for this in rounds:
        tokens += world.expected(this.gamma)
        if this.siblings is not None:
            reached = (1.0 - world.acceptance) * world.acceptance ** np.arange(this.gamma)
            shares = np.array([*world.right, 0.0, 0.0, 0.0][:SIBLINGS])
            tokens += float((this.siblings * reached[:, None] * shares).sum())
    return tokens / (milliseconds(rounds) + sum(world.host_ms[not this.resting] for this in rounds))


def milliseconds(rounds: Sequence[Round]) -> float:
    return sum((this.draft_ms or 0.0) + (this.verify_ms or 0.0) + (this.extend_ms or 0.0) for this in rounds)

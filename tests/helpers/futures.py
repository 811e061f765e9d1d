"""Rounds that are settled beforehand, to find out a policy that sees what it cannot know yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from speckv.controller.policy import BEST, Policy, Request, Round

Event = tuple[int, int, object]


def decisions(policy: Policy, future: Future, rounds: int, size: int = 1, room: int = 20) -> list[Event]:
    """(round, levels seen, answer) of all that a policy is asked, whatever rounds its answers make of ``future``."""
    requests = [Request() for _ in range(size)]
    events: list[Event] = []
    for number in range(rounds):
        this = Round(requests)
        most = wanted = policy.begin(this, room)
        events.append((number, 0, most))
        while len(this.levels) < wanted:
            this.levels.append(future.signals[number, len(this.levels)].copy())
            if policy.asks and (policy.per_level or len(this.levels) == 1):
                wanted = min(most, policy.deepen(this))
                events.append((number, len(this.levels), wanted))
        this.gamma = wanted
        this.siblings = policy.choose(this) if wanted else None
        events.append((number, len(this.levels), None if this.siblings is None else this.siblings.tolist()))
        this.accepted = np.minimum(future.matches[number], wanted).tolist()
        rejected = zip(this.accepted, future.ranks[number].tolist(), strict=True)
        this.ranks = [rank if accepted < wanted else 0 for accepted, rank in rejected]
        this.emitted = sum(this.accepted) + size + sum(this.sibling_hits)
        this.draft_ms = 30.0 * len(this.levels)
        this.verify_ms = 100.0 + 2.0 * this.verified
        policy.observe(this)
        this.remember()
    return events


@dataclass(frozen=True)
class Future:
    """What rounds see, ``signals`` (rounds, levels, n, 5), and have accepted, ``matches`` and ``ranks`` (rounds, n)."""

    signals: np.ndarray[Any, Any]
    matches: np.ndarray[Any, Any]
    ranks: np.ndarray[Any, Any]

    @classmethod
    def random(cls, seed: int, rounds: int, size: int = 1, levels: int = 30) -> Future:
        """Signals that say something: where the draft is sure more is accepted."""
        draws = np.random.default_rng(seed)
        best = np.sort(draws.dirichlet((4.0, 0.6, 0.4, 0.3, 0.3), (rounds, levels, size))[..., :BEST])[..., ::-1]
        entropies = -(best * np.log(np.maximum(best, 1e-9))).sum(axis=-1, keepdims=True)
        held = draws.random((rounds, levels, size)) < best[..., 0]
        ranks = draws.integers(1, BEST + 1, (rounds, size))
        return cls(np.concatenate((entropies, best), axis=-1), np.cumprod(held, axis=1).sum(axis=1), ranks)

    def until(self, number: int, seen: int, other: Future) -> Future:
        """The same until so many levels of that round were seen, and what ``other`` says from there on."""
        signals, matches, ranks = other.signals.copy(), other.matches.copy(), other.ranks.copy()
        for known, own in ((signals, self.signals), (matches, self.matches), (ranks, self.ranks)):
            known[:number] = own[:number]
        signals[number, :seen] = self.signals[number, :seen]
        return Future(signals, matches, ranks)


def sees_the_future(make: Callable[[Future], Policy], seed: int, number: int, seen: int, size: int = 1) -> bool:
    """Whether a policy decides otherwise before futures differ, in round ``number`` once ``seen`` levels are there."""
    one = Future.random(seed, number + 1, size)
    other = one.until(number, seen, Future.random(seed + 1, number + 1, size))
    played = [decisions(make(future), future, number + 1, size) for future in (one, other)]
    known = [[event for event in events if event[:2] <= (number, seen)] for events in played]
    return known[0] != known[1]

"""What a policy is: it shapes the tree that a round drafts and verifies, and is told what came of it.

A batch of one request is a batch: transformers' loop and SGLang's worker ask the same calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speckv.controller.curve import Costs
from speckv.controller.features import RecentAcceptance

BEST = 4
"""Most probable tokens known of every drafted level: the spine's own and up to three siblings."""

SIBLINGS = BEST - 1

Level = NDArray[np.floating[Any]]
"""(n, 1 + BEST): of each request the entropy (nats) of the draft's distribution and its BEST largest probabilities.

All are of the raw logits (temperature 1).
"""

Siblings = NDArray[np.bool_]
"""(n, γ, SIBLINGS): which siblings are verified, by request, depth and rank (the second most probable token first)."""


@dataclass(slots=True)
class Request:
    """One request as a loop knows it, from its first round to its last; ``stale`` tokens are new to the draft."""

    recent: RecentAcceptance = field(default_factory=RecentAcceptance)
    stale: int = 0
    last: Level | None = None
    """(γ, 1 + BEST): the signals of the latest round that drafted."""


@dataclass(slots=True)
class Round:
    """One round over a batch: draft levels of a spine, verify them and siblings beside them, keep what is right.

    Times are wall-clock milliseconds, None where they could not be had. ``extend_ms`` is a server's closing forward of
    the draft, which gives the next round's first level.
    """

    requests: Sequence[Request]
    position: int = 0
    """Tokens of context, of the longest request."""
    plain: frozenset[int] = frozenset()
    """Which requests are decoded plainly: of what is drafted for them beside the others, nothing is accepted."""
    levels: list[Level] = field(default_factory=list)
    """As drafted, the first ``gamma`` of them verified."""
    gamma: int = 0
    siblings: Siblings | None = None
    accepted: list[int] = field(default_factory=list)
    """Of each request, how many tokens of its spine."""
    ranks: list[int] = field(default_factory=list)
    """Of each request, the rank of the target's token where the spine was rejected: 1 … SIBLINGS, else BEST.

    0 where the spine was not rejected, or could not be accepted. It is known whether or not that sibling was verified.
    """
    emitted: int = 0
    """Tokens of all requests together, the target's own included."""
    resting: bool = False
    """The draft did nothing at all."""
    caught_up: int = 0
    """Stale tokens that the draft processed before its first level, or with it."""
    draft_prefill: bool = False
    verify_prefill: bool = False
    """Whether the draft's, the verify's time holds a prompt's prefill, and so says nothing about a round."""
    notes: Any = None
    """The policy's own, about this round: in a server the next one may begin before this one has ended."""
    draft_ms: float | None = None
    verify_ms: float | None = None
    extend_ms: float | None = None
    decide_ms: float = 0.0
    before_ms: float | None = None
    """Of the round before, what no forward and no catching up covers, up to this one's beginning: the host's work."""
    after_rest: bool = False
    """Whether the draft rested in the round before."""

    @property
    def size(self) -> int:
        return len(self.requests)

    @property
    def verified(self) -> int:
        """Drafted tokens of all requests that were verified, siblings included."""
        return self.gamma * self.size + self.offered_siblings

    @property
    def offered_siblings(self) -> int:
        return 0 if self.siblings is None else int(self.siblings.sum())

    @property
    def sibling_hits(self) -> list[bool]:
        """Of each request, whether a verified sibling was right."""
        if self.siblings is None:
            return [False] * self.size
        found = enumerate(zip(self.accepted, self.ranks, strict=True))
        return [0 < rank < BEST and bool(self.siblings[row, depth, rank - 1]) for row, (depth, rank) in found]

    def remember(self) -> None:
        """Put what this finished round says of its requests into them."""
        for row, (request, accepted) in enumerate(zip(self.requests, self.accepted, strict=True)):
            if row not in self.plain:
                request.recent.add(accepted, self.gamma)
            if self.levels:
                request.last = np.stack([level[row] for level in self.levels])


class Policy(ABC):
    """Shapes every round. A loop calls, in this order,

    - ``begin``: the most levels to draft; 0 leaves the draft alone;
    - ``deepen`` after the first level, and, if ``per_level``, after each further one;
    - ``choose`` once all levels are drafted, or ``common`` where the loop itself chooses which;
    - ``observe`` when the target has verified.

    Losslessness asks two things of a loop and a policy together: whether a token that was *drawn* from the draft is
    verified never depends on which one it is, and no decision sees this round's acceptance draws or target logits.
    """

    asks = True
    """Whether ``deepen`` is to be asked at all; if not, a loop need not read signals while it drafts."""
    per_level = False
    fallbacks = 0
    """Decisions that could not use the signals, since these were not finite."""

    @abstractmethod
    def begin(self, this: Round, room: int) -> int:
        """The most levels to draft in ``this`` round, 0 … ``room``."""

    def deepen(self, this: Round) -> int:
        """How many levels to have in all, now that ``this.levels`` has one more; as many as there are: go on to verify.

        Fewer than there are: only so many are verified.
        """
        raise NotImplementedError("a policy that asks must define it")

    def choose(self, this: Round) -> Siblings | None:
        """The siblings to verify beside the spine of ``this.gamma`` levels, as many of every request; None for none."""
        return None

    def common(self, this: Round, allowed: Sequence[int]) -> int:
        """How many siblings to verify of every request, one of the ascending ``allowed``, the first of which is 0.

        Which ones is the loop's to choose, by the draft's probabilities: a server does it on the device. Deciding
        before drafting, this is known when no more than the first level's signals are.
        """
        return 0

    def observe(self, this: Round) -> None:  # noqa: B027 - a policy that does not learn need not define it
        """Learn from a finished round, before its requests remember it."""

    def prefill(self, size: int, requests: int, tokens: int) -> bool:
        """Whether to prefill the draft with ``tokens`` of ``requests`` that make a batch of ``size``."""
        return True

    def caught_up(self, tokens: int, ms: float) -> None:  # noqa: B027 - for those that go by costs
        """The draft processed ``tokens`` of prompts, or of what it had missed, in ``ms``."""

    def learnt(self) -> Costs | None:
        """What rounds take, as far as it has learnt that, to begin with another time; None if it does not go by it."""
        return None

    def ended(self, tokens: int) -> None:  # noqa: B027 - for those that plan ahead
        """A request has ended after ``tokens`` of output."""

"""Play a policy on traces: exactly what it would have drafted, had accepted and taken, given the costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from speckv.benchmarks.replay.positions import Positions, Served
from speckv.benchmarks.replay.regimes import Regime
from speckv.controller.policy import Policy, Request, Round


@dataclass
class Played:
    """What a policy did in one order: totals, and each sequence's tokens and ms (they share a round's time)."""

    rounds: int = 0
    tokens: int = 0
    ms: float = 0.0
    drafted: int = 0
    verified: int = 0
    accepted: int = 0
    by_sequence: dict[int, list[float]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Tokens per ms."""
        return self.tokens / self.ms

    def add(self, sequences: Sequence[int], emitted: Sequence[int], ms: float, drafted: int, verified: int) -> None:
        """A round that drafted and verified so many tokens of all requests together."""
        self.rounds += 1
        self.tokens += sum(emitted)
        self.ms += ms
        self.drafted += drafted
        self.verified += verified
        self.accepted += sum(emitted) - len(sequences)
        for sequence, tokens in zip(sequences, emitted, strict=True):
            totals = self.by_sequence.setdefault(sequence, [0.0, 0.0])
            totals[0] += tokens
            totals[1] += ms / len(sequences)


def play(
    policy: Policy, positions: Positions, regime: Regime, order: Sequence[int], batch: int = 1, exact: bool = False
) -> Played:
    """``policy`` on the sequences of ``order``, ``batch`` at a time; it keeps learning. Stops once a place is free.

    One request's round has no more levels than its sequence may have tokens, and, where they are looked at one by one,
    ends with a drafted EOS. In a batch, and where a server decides (``exact``), it drafts exactly what was decided.
    """
    played = Played()
    for this, sequences, emitted in rounds(policy, positions, regime, order, batch, exact):
        assert this.draft_ms is not None and this.verify_ms is not None
        drafted = len(this.levels) * batch
        played.add(sequences, emitted, this.draft_ms + this.verify_ms, drafted, this.verified)
    return played


def rounds(
    policy: Policy, positions: Positions, regime: Regime, order: Sequence[int], batch: int = 1, exact: bool = False
) -> Iterator[tuple[Round, list[int], list[int]]]:
    """Every finished round, with its sequences and the tokens that each emitted."""
    served = Served(positions, order, batch)
    requests = [Request() for _ in range(batch)]
    verify = regime.verify_table(batch)
    draft_ms = regime.draft_ms(batch)
    while served.full:
        at = served.at
        this = Round(list(requests), position=0)
        room = positions.depth
        if batch == 1 and not exact:
            room = min(int(positions.room[at[0]]), int(positions.lengths[at[0]]) if policy.per_level else room)
        _draft(policy, this, positions, at, room)
        accepted, ranks = positions.accepted(at, this.gamma)
        this.accepted, this.ranks = accepted.tolist(), ranks.tolist()
        emitted = np.minimum(accepted + 1 + this.sibling_hits, positions.end[at] - at)
        this.emitted = int(emitted.sum())
        this.draft_ms = draft_ms * len(this.levels)
        this.verify_ms = float(verify[batch + this.verified])
        policy.observe(this)
        this.remember()
        yield this, list(served.sequences), emitted.tolist()
        for place in served.advance(emitted):
            requests[place] = Request()


def _draft(policy: Policy, this: Round, positions: Positions, at: np.ndarray, room: int) -> None:
    """Fill ``this`` with levels and siblings; the policy is shown no more than was drafted."""
    levels = min(policy.begin(this, room), room)
    this.resting = levels == 0
    while len(this.levels) < levels:
        this.levels.append(positions.signals[at, len(this.levels)])
        if policy.asks and (policy.per_level or len(this.levels) == 1):
            levels = min(policy.deepen(this), room)
    this.gamma = min(levels, len(this.levels))
    this.siblings = policy.choose(this) if this.gamma else None

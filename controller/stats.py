"""Running totals of speculation rounds: what a user asks of an attached model or a server."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from speckv.controller.policy import Round


@dataclass
class Stats:
    """Totals over requests since the start or the last reset; times in milliseconds."""

    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    emitted: int = 0
    draft_ms: float = 0.0
    verify_ms: float = 0.0
    decide_ms: float = 0.0
    gammas: Counter[int] = field(default_factory=Counter)
    siblings: Counter[int] = field(default_factory=Counter)
    """By depth, from 1: tokens that were verified beside the spine's."""
    sibling_hits: Counter[int] = field(default_factory=Counter)
    """By depth: those of them that were right."""
    trees: bool | None = None
    """Whether the target can verify siblings, where that was tried."""

    def add(self, this: Round) -> None:
        """Count a finished round; one of n requests counts n times, so that ratios are those of a request."""
        self.rounds += this.size
        self.drafted += len(this.levels) * this.size
        self.accepted += sum(this.accepted)
        self.emitted += this.emitted
        self.draft_ms += this.draft_ms or 0.0
        self.verify_ms += this.verify_ms or 0.0
        self.decide_ms += this.decide_ms
        self.gammas[this.gamma] += this.size
        if this.siblings is not None:
            self.siblings.update(dict(enumerate(this.siblings.sum(axis=(0, 2)).tolist(), 1)))
            hits = zip(this.accepted, this.sibling_hits, strict=True)
            self.sibling_hits.update(accepted + 1 for accepted, hit in hits if hit)

    def merge(self, other: Stats) -> None:
        """Add another's totals to these."""
        self.rounds += other.rounds
        self.drafted += other.drafted
        self.accepted += other.accepted
        self.emitted += other.emitted
        self.draft_ms += other.draft_ms
        self.verify_ms += other.verify_ms
        self.decide_ms += other.decide_ms
        self.gammas += other.gammas
        self.siblings += other.siblings
        self.sibling_hits += other.sibling_hits

    @property
    def acceptance_rate(self) -> float:
        """Accepted over drafted tokens; 0 when nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_verify(self) -> float:
        """Emitted tokens per target forward (the field's τ)."""
        return self.emitted / self.rounds if self.rounds else 0.0

    @property
    def mean_gamma(self) -> float:
        return self.drafted / self.rounds if self.rounds else 0.0

    @property
    def wasted(self) -> int:
        """Drafted tokens that were not accepted."""
        return self.drafted - self.accepted

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, counts by γ and by depth with string keys in ascending order."""
        return {
            "rounds": self.rounds,
            "drafted": self.drafted,
            "accepted": self.accepted,
            "wasted": self.wasted,
            "emitted": self.emitted,
            "acceptance_rate": self.acceptance_rate,
            "tokens_per_verify": self.tokens_per_verify,
            "mean_gamma": self.mean_gamma,
            "draft_ms": self.draft_ms,
            "verify_ms": self.verify_ms,
            "decide_ms": self.decide_ms,
            "gammas": by_number(self.gammas),
            "siblings": by_number(self.siblings),
            "sibling_hits": by_number(self.sibling_hits),
            "trees": self.trees,
        }


def by_number(counts: Counter[int]) -> dict[str, int]:
    """``counts`` for JSON: string keys in ascending order, without those that are 0."""
    return {str(number): counts[number] for number in sorted(counts) if counts[number]}

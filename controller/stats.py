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
        """Plain numbers for JSON, the γ histogram with string keys in ascending order."""
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
            "gammas": {str(gamma): self.gammas[gamma] for gamma in sorted(self.gammas)},
        }

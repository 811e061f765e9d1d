"""The controller's features: names, order and units, and how they are computed from a round's signals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from speckv.controller.errors import SpecKVError

SIGNAL_FEATURES = (
    "mean_draft_entropy",  # nats
    "mean_draft_confidence",  # probability
    "max_draft_entropy",  # nats
    "min_draft_confidence",  # probability
)
FEATURES = (*SIGNAL_FEATURES, "compression", "gamma")
"""The paper's names and order (arXiv 2605.02888)."""

SURVIVAL_FEATURES = (
    "mean_draft_entropy",  # nats
    "log_draft_confidence",  # sum of ln of the top-1 probabilities, each at least LEAST_CONFIDENCE
    "max_draft_entropy",  # nats
    "recent_acceptance",  # probability
    "lasting_acceptance",  # probability
    "compression",
    "drafted",  # tokens so far this round, k
    "further",  # tokens beyond those, e
)
"""Ours: what tells whether at least k + e of a round's tokens would be accepted.

The first three are of its first k tokens (zeros where there are none yet), the acceptances of the rounds before in this
sequence. With e = 0 the question is whether those drafted so far survive.
"""

FURTHEST = 8
"""Largest ``further`` that the head is taught, and asked for."""

ENTROPY_FEATURES = ("mean_draft_entropy", "max_draft_entropy")
NATS = {"nats": 1.0, "bits": math.log(2)}
"""Nats in one of each unit of entropy. Ours are nats; the paper's released data and weights are in bits."""

COMPRESSION_LEVELS = {"fp16": 0, "int8": 1, "nf4": 2}
"""The paper's encoding of the target's compression; bf16 and fp32 count as fp16, any 4-bit format as nf4."""


def compression_level(name: str) -> int:
    """The level (0, 1 or 2) of a compression's name."""
    canonical = {"bf16": "fp16", "fp32": "fp16"}.get(name, name)
    if canonical not in COMPRESSION_LEVELS:
        known = ", ".join((*COMPRESSION_LEVELS, "bf16", "fp32"))
        raise SpecKVError(f"{name}: no such compression; known are {known}")
    return COMPRESSION_LEVELS[canonical]


def nats_in(unit: str) -> float:
    """Nats in one ``unit``, one of NATS."""
    if unit not in NATS:
        raise SpecKVError(f"entropy unit {unit}: must be {' or '.join(NATS)}")
    return NATS[unit]


LEAST_CONFIDENCE = 1e-5
"""A top-1 probability is at least one over the vocabulary's size; of what is below, the logarithm is cut here."""


class RecentAcceptance:
    """How often a token that follows an accepted one was accepted too, as two memories of one sequence, short and long.

    Each starts at ``START`` of so many tokens' weight, and keeps so much of its weight per later token (``MEMORIES``).
    """

    START = 0.75
    MEMORIES = ((0.7, 4.0), (0.93, 8.0))
    """(kept per token, weight at the start) of the recent and of the lasting acceptance."""

    def __init__(self) -> None:
        self._hits, self._tried = [self.START * weight for _, weight in self.MEMORIES], [w for _, w in self.MEMORIES]

    def add(self, accepted: int, drafted: int) -> None:
        """A round ended: ``accepted`` hits, and a miss if more were ``drafted``; of tokens beyond nothing is known."""
        missed = accepted < drafted
        tried = accepted + missed
        for place, (kept, _) in enumerate(self.MEMORIES):
            old = kept**tried
            miss = kept if missed else 1.0
            self._hits[place] = old * self._hits[place] + (miss - old) / (1.0 - kept)
            self._tried[place] = old * self._tried[place] + (1.0 - old) / (1.0 - kept)

    @property
    def values(self) -> tuple[float, float]:
        """(recent, lasting) acceptance, two of SURVIVAL_FEATURES."""
        return self._hits[0] / self._tried[0], self._hits[1] / self._tried[1]


def summarize(entropies: Sequence[float], confidences: Sequence[float]) -> tuple[float, float, float, float]:
    """The four SIGNAL_FEATURES of the tokens drafted so far (at least one).

    Plain Python: it runs after every drafted token, and is faster than numpy for the few tokens of a round.
    """
    count = len(confidences)
    return sum(entropies) / count, sum(confidences) / count, max(entropies), min(confidences)

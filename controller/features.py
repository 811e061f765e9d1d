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
    "log_draft_confidence",  # sum of ln of the top-1 probabilities
    "max_draft_entropy",  # nats
    "recent_acceptance",  # probability, of the rounds before in this text
    "compression",
    "drafted",  # tokens so far this round
)
"""Ours: what tells whether one more token of a round would survive (benchmarks/data/README.md has the ablation)."""

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


def prefix(
    entropies: Sequence[float], confidences: Sequence[float], recent: float
) -> tuple[float, float, float, float]:
    """The first four SURVIVAL_FEATURES of the tokens drafted so far (none: zeros), after ``recent`` acceptance."""
    count = len(confidences)
    if not count:
        return 0.0, 0.0, 0.0, recent
    # Not max(confidence, …), which would swallow a NaN.
    surprise = sum(math.log(LEAST_CONFIDENCE if p < LEAST_CONFIDENCE else p) for p in confidences)
    return sum(entropies) / count, surprise, max(entropies), recent


class RecentAcceptance:
    """How often a token that follows an accepted one was accepted too, in the latest rounds of a text.

    It starts at ``START`` of four tokens' weight, and a round keeps ``KEPT`` of its weight per later round.
    """

    START, WEIGHT, KEPT = 0.75, 4.0, 0.8

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the text before."""
        self._accepted, self._tried = self.START * self.WEIGHT, self.WEIGHT

    def add(self, accepted: int, drafted: int) -> None:
        """A round of ``drafted`` tokens ended; one without any says nothing."""
        if drafted:
            self._accepted = self.KEPT * self._accepted + accepted
            self._tried = self.KEPT * self._tried + min(accepted + 1, drafted)

    @property
    def value(self) -> float:
        return self._accepted / self._tried


def summarize(entropies: Sequence[float], confidences: Sequence[float]) -> tuple[float, float, float, float]:
    """The four SIGNAL_FEATURES of the tokens drafted so far (at least one).

    Plain Python: it runs after every drafted token, and is faster than numpy for the few tokens of a round.
    """
    count = len(confidences)
    return sum(entropies) / count, sum(confidences) / count, max(entropies), min(confidences)

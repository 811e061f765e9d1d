"""From one request's round to its record."""

from __future__ import annotations

from dataclasses import dataclass

from speckv.controller.features import summarize
from speckv.controller.records import Row


@dataclass
class Step:
    """One request's finished round, as a record has it: ``entropies`` (nats), ``confidences`` of its drafted tokens."""

    position: int
    entropies: list[float]
    confidences: list[float]
    accepted: int
    emitted: int
    draft_ms: float = 0.0
    verify_ms: float = 0.0


def make_row(outcome: Step, run: Row, step: int) -> Row:
    """The record of ``outcome``, round number ``step`` within ``run``'s constants."""
    mean_entropy, mean_confidence, max_entropy, min_confidence = summarize(outcome.entropies, outcome.confidences)
    return {
        **run,
        "step": step,
        "accepted": outcome.accepted,
        "acceptance_rate": outcome.accepted / len(outcome.confidences),
        "tokens_produced": outcome.emitted,
        "mean_draft_entropy": mean_entropy,
        "mean_draft_confidence": mean_confidence,
        "max_draft_entropy": max_entropy,
        "min_draft_confidence": min_confidence,
        "position": outcome.position,
        "entropies": outcome.entropies,
        "confidences": outcome.confidences,
        "draft_ms": outcome.draft_ms,
        "verify_ms": outcome.verify_ms,
    }

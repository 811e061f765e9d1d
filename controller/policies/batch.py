"""One common γ for a batch of requests: what a server asks, whose draft and verify run over all of them at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from speckv.controller.policies.learned import Asking, Controller
from speckv.controller.policies.tokens import PAPER_GAMMAS

Summary = tuple[float, float, float, float]
"""The four SIGNAL_FEATURES of one request, or the first four SURVIVAL_FEATURES."""

MOST_ASKED = 16
"""Requests the controller is asked about per decision; evenly spaced ones stand for a larger batch."""


@dataclass(slots=True)
class BatchRound:
    """One round over a batch, as a server's loop reports it. Times in ms.

    ``drafted`` is the common γ, ``active`` whether the draft did anything at all. ``draft_ms`` is what drafting on
    took after the first token, ``extend_ms`` the draft's forward over what was committed, which gives the next
    round's first token. ``entropies`` and ``confidences`` have one list per request, of as many values. ``catch_up``
    rows brought the draft's cache up to date before that. ``timed`` is False where a time is missing.
    """

    size: int
    drafted: int = 0
    active: bool = True
    accepted: Sequence[int] = ()
    entropies: list[list[float]] = field(default_factory=list)
    confidences: list[list[float]] = field(default_factory=list)
    draft_ms: float = 0.0
    verify_ms: float = 0.0
    extend_ms: float = 0.0
    decide_ms: float = 0.0
    catch_up: int = 0
    timed: bool = True

    @property
    def emitted(self) -> int:
        return sum(self.accepted) + len(self.accepted)


class BatchPolicy(ABC):
    """Chooses the γ that all requests of a batch share.

    A loop calls ``begin`` once a round. With ``per_token``, and once the signals of the first draft token are
    known, it asks ``first`` whether that token is worth verifying and ``more`` after each further one.
    """

    per_token = False
    fallbacks = 0
    """Decisions that could not use the signals, since these were not finite."""

    @abstractmethod
    def begin(self, size: int, behind: int, previous: Sequence[Summary | None]) -> int:
        """The most tokens to draft for ``size`` requests; 0 decodes plainly and leaves the draft alone.

        ``behind``: rows the draft would have to process first. ``previous``: each request's last signals.
        """

    def first(self, entropies: Sequence[Sequence[float]], confidences: Sequence[Sequence[float]]) -> bool:
        """Whether to verify the first draft token, which cost no draft forward of its own."""
        return True

    def more(self, entropies: Sequence[Sequence[float]], confidences: Sequence[Sequence[float]]) -> bool:
        """Whether to draft another token, given each request's signals so far."""
        return True

    def warm(self, size: int, requests: int = 1, rows: int = 0) -> bool:
        """Whether the draft should read the prompts, ``rows`` in all, of ``requests`` that make the batch ``size``."""
        return True

    def read(self, rows: int, ms: float) -> None:  # noqa: B027 - for those that go by costs
        """The draft read ``rows`` of prompts, or of what it had missed, in ``ms``."""

    def ended(self, tokens: int) -> None:  # noqa: B027 - for those that plan ahead
        """A request has ended after ``tokens`` of output."""

    def observe(self, outcome: BatchRound) -> None:  # noqa: B027 - a policy that does not learn need not define it
        """Learn from a finished round."""


class FixedBatchPolicy(BatchPolicy):
    """Always γ = ``gamma``."""

    def __init__(self, gamma: int) -> None:
        self.gamma = gamma

    def begin(self, size: int, behind: int, previous: Sequence[Summary | None]) -> int:
        return self.gamma

    def warm(self, size: int, requests: int = 1, rows: int = 0) -> bool:
        return self.gamma > 0


class LearnedBatchPolicy(Asking, BatchPolicy):
    """Base of those that ask a controller."""

    def total(self, summaries: Sequence[Summary], ask: Callable[[Summary], float]) -> float:
        """Σ over requests of ``ask``; of a large batch a sample is asked and stands for all."""
        stride = -(-len(summaries) // MOST_ASKED)
        asked = summaries[::stride]
        return sum(ask(summary) for summary in asked) * len(summaries) / len(asked)


class TokensBatchPolicy(LearnedBatchPolicy):
    """The paper's rule for a batch: argmax over γ of Σ_requests 1 + γ·r(γ), from the previous round's signals."""

    def __init__(self, controller: Controller, level: int, max_gamma: int = 8, fallback_gamma: int = 4) -> None:
        super().__init__(controller, level, max_gamma, fallback_gamma)
        self.gammas = tuple(gamma for gamma in PAPER_GAMMAS if gamma <= max_gamma) or (max_gamma,)

    def begin(self, size: int, behind: int, previous: Sequence[Summary | None]) -> int:
        known = [summary for summary in previous if summary is not None]
        if not known or not all(map(self.usable, known)):
            return self.fallback_gamma
        expected = np.zeros(len(self.gammas))
        for summary in known:
            expected += np.asarray(self.controller.acceptance_rates(summary, self.level, self.gammas)) * self.gammas
        return self.gammas[int(np.argmax(expected))]

"""What a policy is: it says how many tokens to draft, sees the draft's signals, is told what came of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Round:
    """One speculation round (draft, then verify), as a framework's loop reports it.

    Times are wall-clock milliseconds. ``catch_up`` is how many rows the first draft forward had to process to
    bring the draft's cache up to date. ``draft_prefill`` and ``verify_prefill`` mark times that hold a
    prompt's prefill, so they say nothing about a step.
    """

    position: int
    entropies: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    accepted: int = 0
    emitted: int = 1
    catch_up: int = 0
    draft_ms: float = 0.0
    verify_ms: float = 0.0
    decide_ms: float = 0.0
    draft_prefill: bool = False
    verify_prefill: bool = False

    @property
    def drafted(self) -> int:
        return len(self.confidences)


class Policy(ABC):
    """Chooses the speculation length γ of every round.

    A loop calls ``start`` once a text, ``begin`` once a round, then, only if ``per_token``, ``more`` after each
    drafted token, and ``observe`` when the target has verified. Losslessness asks two things of a loop and a policy
    together: every token that was drafted is verified, and no decision sees this round's acceptance draws or target
    logits.
    """

    per_token: bool = False
    """Whether ``more`` is to be asked after each token; if not, a loop need not read signals in between."""

    def start(self) -> None:  # noqa: B027 - most policies treat all texts alike
        """A new text begins."""

    @abstractmethod
    def begin(self, room: int) -> int:
        """The most tokens to draft this round, 0 … ``room``; 0 decodes one token without the draft."""

    def more(self, entropies: Sequence[float], confidences: Sequence[float]) -> bool:
        """Whether to draft another token, given this round's signals so far (nats, top-1 probabilities)."""
        return True

    def observe(self, outcome: Round) -> None:  # noqa: B027 - a policy that does not learn need not define it
        """Learn from a finished round."""

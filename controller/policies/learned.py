"""What the policies that ask the trained controller share: its interface, and what to do with a NaN."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Protocol

from speckv.controller.decision import Floats
from speckv.controller.features import summarize
from speckv.controller.policy import Policy, Round

logger = logging.getLogger("speckv")


class Controller(Protocol):
    """The trained controller as a policy sees it."""

    def acceptance_rates(self, signals: Sequence[float], level: int, gammas: Sequence[int]) -> Floats:
        """Predicted acceptance rate (K,) if γ tokens were drafted, for each γ; ``signals`` are SIGNAL_FEATURES."""

    def survival(self, signals: Sequence[float], level: int, drafted: int) -> float:
        """Predicted P(more than ``drafted`` tokens are accepted); ``signals`` as by ``features.prefix``."""


class Asking:
    """What asks a controller; ``level`` is the target's compression level (0, 1, 2).

    A decision on signals that are not finite keeps to ``fallback_gamma`` tokens instead and is counted in
    ``fallbacks``; the first one is logged.
    """

    def __init__(self, controller: Controller, level: int, max_gamma: int, fallback_gamma: int) -> None:
        self.controller = controller
        self.level = level
        self.max_gamma = max_gamma
        self.fallback_gamma = min(fallback_gamma, max_gamma)
        self.fallbacks = 0

    def usable(self, signals: Sequence[float] | None) -> bool:
        """Whether the controller can be asked about ``signals``; says once when it cannot for a NaN."""
        if signals is None:
            return False
        # A NaN does not survive a sum, and may survive max() or min(): the means decide.
        if math.isfinite(signals[0]) and math.isfinite(signals[1]):
            return True
        if not self.fallbacks:
            logger.warning("speckv: the draft's signals are not finite; using γ %d while they are", self.fallback_gamma)
        self.fallbacks += 1
        return False


class LearnedPolicy(Asking, Policy):
    """Base of policies for one text that ask a controller; ``last_signals`` are those of the latest round's tokens."""

    def __init__(self, controller: Controller, level: int, max_gamma: int, fallback_gamma: int) -> None:
        super().__init__(controller, level, max_gamma, fallback_gamma)
        self.last_signals: tuple[float, float, float, float] | None = None

    def observe(self, outcome: Round) -> None:
        if outcome.drafted:
            self.last_signals = summarize(outcome.entropies, outcome.confidences)

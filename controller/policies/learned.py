"""What the policies that ask the trained controller share: its interface, and what to do with a NaN."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speckv.controller.arrays import Floats
from speckv.controller.policy import Level, Policy

logger = logging.getLogger("speckv")


class Controller(Protocol):
    """The trained controller as a policy sees it."""

    def acceptance_rates(self, signals: Sequence[float], level: int, gammas: Sequence[int]) -> Floats:
        """Predicted acceptance rate (K,) if γ tokens were drafted, for each γ; ``signals`` are SIGNAL_FEATURES."""

    def survival(self, prefixes: NDArray[np.float32], further: tuple[int, ...]) -> Floats:
        """P(as many tokens as were drafted, and e more, are accepted), (n, K), for each e in ``further``.

        ``prefixes`` (n, 7) are SURVIVAL_FEATURES but the last. The answer is valid until the next call.
        """


class LearnedPolicy(Policy):
    """Base of those that ask a controller; ``compression`` is the target's level (0, 1, 2).

    A decision on signals that are not finite keeps to ``fallback_gamma`` levels instead and is counted in
    ``fallbacks``; the first one is logged.
    """

    def __init__(self, controller: Controller, compression: int, max_gamma: int, fallback_gamma: int) -> None:
        self.controller = controller
        self.compression = compression
        self.max_gamma = max_gamma
        self.fallback_gamma = min(fallback_gamma, max_gamma)
        self.fallbacks = 0

    def usable(self, signals: Level) -> bool:
        """Whether the controller can be asked about ``signals``; says once when it cannot for a NaN."""
        # A sum is finite where all is, and a NaN or an infinity never leaves one: much cheaper than isfinite of each.
        if math.isfinite(np.add.reduce(signals, None)):
            return True
        if not self.fallbacks:
            logger.warning("speckv: the draft's signals are not finite; using γ %d while they are", self.fallback_gamma)
        self.fallbacks += 1
        return False

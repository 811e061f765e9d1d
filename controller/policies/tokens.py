"""The paper's policy: before drafting, the γ with most expected tokens, whatever it costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speckv.controller.decision import best_for_tokens
from speckv.controller.policies.learned import Controller, LearnedPolicy

PAPER_GAMMAS = (2, 4, 6, 8)


class TokensPolicy(LearnedPolicy):
    """argmax over ``gammas`` of 1 + γ · r(γ), r from the previous round's signals (arXiv 2605.02888).

    The first round of a text, which has no signals yet, drafts ``fallback_gamma`` tokens.
    """

    def __init__(
        self,
        controller: Controller,
        level: int,
        gammas: Sequence[int] = PAPER_GAMMAS,
        fallback_gamma: int = 4,
    ) -> None:
        super().__init__(controller, level, max(gammas), fallback_gamma)
        self.gammas = tuple(gammas)
        self._gammas = np.asarray(gammas, dtype=np.float32)

    def begin(self, room: int) -> int:
        signals = self.last_signals
        if signals is None or not self.usable(signals):
            return min(self.fallback_gamma, room)
        rates = self.controller.acceptance_rates(signals, self.level, self.gammas)
        return min(self.gammas[int(best_for_tokens(rates, self._gammas))], room)

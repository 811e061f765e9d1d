"""The paper's policy: before drafting, the γ with most expected tokens, whatever it costs."""

from __future__ import annotations

import numpy as np

from speckv.controller.features import summarize
from speckv.controller.policies.learned import Controller, LearnedPolicy
from speckv.controller.policy import Round

PAPER_GAMMAS = (2, 4, 6, 8)


class TokensPolicy(LearnedPolicy):
    """argmax over γ of Σ_requests 1 + γ · r(γ), r from the previous round's signals (arXiv 2605.02888).

    A round whose requests have no signals yet drafts ``fallback_gamma`` tokens.
    """

    asks = False

    def __init__(self, controller: Controller, compression: int, max_gamma: int = 8, fallback_gamma: int = 4) -> None:
        super().__init__(controller, compression, max_gamma, fallback_gamma)
        self.gammas = tuple(gamma for gamma in PAPER_GAMMAS if gamma <= max_gamma) or (max_gamma,)

    def begin(self, this: Round, room: int) -> int:
        known = [request.last for request in this.requests if request.last is not None]
        if not known or not all(map(self.usable, known)):
            return min(self.fallback_gamma, room)
        expected = np.zeros(len(self.gammas))
        for signals in known:
            summary = summarize(signals[:, 0].tolist(), signals[:, 1].tolist())
            expected += np.multiply(
                self.controller.acceptance_rates(summary, self.compression, self.gammas), self.gammas
            )
        return min(self.gammas[int(expected.argmax())], room)

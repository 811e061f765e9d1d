"""SGLang's adaptive speculation: a running mean of the accepted length chooses among a few lengths."""

from __future__ import annotations

from itertools import pairwise

from speckv.controller.policy import Policy, Round

CANDIDATES = (1, 3, 5, 7)
INITIAL = 3
ALPHA = 0.2
WARM_UP = 10
INTERVAL = 5
UP_HYSTERESIS = 0.0
DOWN_HYSTERESIS = -0.25


class SGLangEMA(Policy):
    """Moves γ along ``CANDIDATES`` by the mean accepted length m, an EMA of weight 0.2 a round.

    Source: SGLang 0.5.23, ``srt/speculative/adaptive_spec_params.py``: ``DEFAULT_ADAPTIVE_CONFIG["1"]`` (the
    slot of batch 1), ``AdaptiveStepSlot``; the initial γ is the middle one of all slots' candidates together,
    0, 1, 3, 5, 7 (``srt/arg_groups/speculative_hook.py`` ``_init_adaptive_speculative_params``).

    m starts at γ − 1. After round 15, and every five from there on, γ goes to the next lower candidate l while
    m ≤ l − 0.75; if it did not go down, to the next higher while m > γ − 0.5. Several at once are possible.
    Batch 1 has no candidate 0, so it never stops drafting. All of it lives as long as the server.

    In a batch it is the mean over the requests, as there.

    SGLang drafts its γ whatever is left of the sequence. A draft that our loop cut short there and that was
    accepted whole says nothing of how far it would have gone, and is left out.
    """

    asks = False

    def __init__(self) -> None:
        self.gamma = INITIAL
        self.mean_accepted = INITIAL - 1.0
        self.rounds = 0

    def begin(self, this: Round, room: int) -> int:
        return min(self.gamma, room)

    def observe(self, this: Round) -> None:
        accepted = sum(this.accepted) / this.size
        if accepted == this.gamma < self.gamma:
            return
        self.mean_accepted = (1.0 - ALPHA) * self.mean_accepted + ALPHA * accepted
        self.rounds += 1
        if self.rounds > WARM_UP and (self.rounds - WARM_UP) % INTERVAL == 0:
            self.gamma = self._next()

    def _next(self) -> int:
        gamma = self.gamma
        for lower, higher in reversed(list(pairwise(CANDIDATES))):
            if gamma == higher and self.mean_accepted <= lower - 0.5 + DOWN_HYSTERESIS:
                gamma = lower
        if gamma < self.gamma:
            return gamma
        for lower, higher in pairwise(CANDIDATES):
            if gamma == lower and self.mean_accepted > lower - 0.5 + UP_HYSTERESIS:
                gamma = higher
        return gamma

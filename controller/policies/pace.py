"""How fast requests of one batch size go, and whether the draft is to work for them."""

from __future__ import annotations

from speckv.controller.cost import CostModel
from speckv.controller.estimates import Ratio
from speckv.controller.exploration import Exploration
from speckv.controller.policy import Round

MEMORY = 0.99
"""Weight that a round keeps per later round."""

TRUST = 16.0
"""Weight of the starting value 1 of the option, in first tokens that should hold: only drafting on shows its worth."""

DEAR = 2.0
"""To bring the draft up to date for more than so many plain rounds' time, one of these must have been timed before: it
is what drafting is compared with, and a guess that is wrong would be paid for at once."""


class Pace:
    """Of one batch size; ``length`` is the tokens of output that a request is expected to have."""

    def __init__(self, cost: CostModel, length: Ratio) -> None:
        self.cost, self._length = cost, length
        self.exploration = Exploration()
        self._reached: Ratio | None = None
        self._option = Ratio(1.0, TRUST, MEMORY)
        self._promised = 0.0
        self._rested = False

    def rate(self, size: int, rest_ms: float) -> float:
        """ρ, tokens per ms of the whole batch: what was reached lately, at least plain decoding's."""
        if self._reached is None:
            self._reached = Ratio(size / rest_ms, rest_ms, MEMORY)
        return max(size / rest_ms, self._reached.value)

    def option(self, survival: float) -> float:
        """What drafting brings before its first forward is paid, in tokens, if ``survival`` first tokens should hold.

        Seeing a first token is an option: what follows is drafted only if it then pays.
        """
        return survival * self._option.value

    def promise(self, size: int, tokens: float, saved_ms: float) -> None:
        """Drafting should give ``tokens`` beyond the target's own, and save so much against ρ."""
        self._promised = max(0.0, saved_ms) / (size + tokens)

    def drafts(self, pays: bool, size: int, stale: int) -> bool:
        """Whether the draft is to work in a round of ``size`` requests, ``stale`` tokens of which are new to it."""
        reading_ms = self.cost.reading_ms(stale) if stale > size else 0.0
        if reading_ms > DEAR * self.cost.rest_ms(size) and not self._rested:
            return False
        return self.exploration.drafts(pays and self.worth_reading(size, size, stale), reading_ms)

    def worth_reading(self, size: int, requests: int, tokens: int) -> bool:
        """Whether ``requests`` in a batch of ``size`` are worth the draft's processing ``tokens`` new to it."""
        if tokens <= size:
            return True
        rest_ms = self.cost.rest_ms(size)
        saved = rest_ms / size - 1.0 / self.rate(size, rest_ms) + self._promised
        return self.cost.reading_ms(tokens) <= requests * self._length.value * saved

    def learn(self, outcome: Round, survival: float, rate: float) -> None:
        """A round has ended; ``survival`` of its first tokens was expected, and ``rate`` was its ρ."""
        size = outcome.size
        ms, rest_ms = self.cost.round_ms(outcome), self.cost.rest_ms(size)
        self.rate(size, rest_ms)
        assert self._reached is not None
        self._reached.add(outcome.emitted, ms)
        if outcome.levels and survival:
            spared = ms - rest_ms - self.cost.first_ms(size)
            self._option.add(outcome.emitted - size - rate * spared, survival)
        self._rested |= not outcome.levels and outcome.verify_ms is not None and not outcome.verify_prefill
        self.exploration.learn(bool(outcome.levels), ms, outcome.emitted / ms * rest_ms / size)

"""A cost model that is told what a shared machine makes of the times of rounds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs
from speckv.controller.policy import Round

SPREAD, LASTS = 0.14, 0.98
"""Of the logarithm of how slow the machine is: its deviation, and what is left of it after a round."""

JITTER = 0.09
"""Deviation of the logarithm of each forward's own."""

HELD_UP, TIMES = 0.02, 2.0
"""The share of forwards that something else holds up, and how many times longer they take."""


class NoisyCosts(CostModel):
    """Begins with the true ``costs``, and is told every round's drafting and verify times with :func:`noise`."""

    def __init__(self, costs: Costs, seed: int) -> None:
        super().__init__(costs)
        self._noise = noise(seed)

    def observe(self, outcome: Round) -> None:
        assert outcome.draft_ms is not None and outcome.verify_ms is not None
        took, slower = (outcome.draft_ms, outcome.verify_ms), next(self._noise)
        outcome.draft_ms, outcome.verify_ms = (ms * times for ms, times in zip(took, slower, strict=True))
        super().observe(outcome)
        outcome.draft_ms, outcome.verify_ms = took


def noise(seed: int) -> Iterator[tuple[float, float]]:
    """By how many times longer the drafting and the verify of each round take than they should, round by round.

    A little more than what is stored of transformers on two shared cores (``end-to-end-transformers.json``): there the
    logarithms of the times of forwards of one shape deviate by 0.10 to 0.18 in all, by 0.06 to 0.13 within a text, and
    up to 0.027 of the forwards take more than half as long again.
    """
    random = np.random.default_rng(seed)
    slow = 0.0
    while True:
        slow = LASTS * slow + SPREAD * (1 - LASTS**2) ** 0.5 * random.normal()
        own = slow + JITTER * random.normal(size=2) + np.log(TIMES) * (random.random(2) < HELD_UP)
        drafting, verify = np.exp(own).tolist()
        yield drafting, verify

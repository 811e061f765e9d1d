"""What a shared machine does to the times of rounds, as a policy is told them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SPREAD, LASTS = 0.14, 0.98
"""Of the logarithm of how slow the machine is: its deviation, and what is left of it after a round."""

JITTER = 0.09
"""Deviation of the logarithm of each forward's own."""

HELD_UP, TIMES = 0.02, 2.0
"""The share of forwards that something else holds up, and how many times longer they take."""


def noise(seed: int) -> Iterator[tuple[float, float]]:
    """By how many times longer the drafting and the verify of each round take than they should, round by round.

    As measured in transformers on two shared cores (``end-to-end-transformers.json``): forwards of one shape have
    logarithms that deviate by 0.10 to 0.21 in all, by 0.08 to 0.14 within a text, and up to 0.045 of them take more
    than half as long again.
    """
    random = np.random.default_rng(seed)
    slow = 0.0
    while True:
        slow = LASTS * slow + SPREAD * (1 - LASTS**2) ** 0.5 * random.normal()
        own = slow + JITTER * random.normal(size=2) + np.log(TIMES) * (random.random(2) < HELD_UP)
        drafting, verify = np.exp(own).tolist()
        yield drafting, verify

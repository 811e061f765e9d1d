"""What siblings are worth: of each, once drafted, and of so many of them beforehand."""

from __future__ import annotations

import numpy as np

from speckv.controller.arrays import Floats
from speckv.controller.estimates import Ratio
from speckv.controller.policy import BEST, SIBLINGS, Round
from speckv.controller.tree import sibling_values

PER_LEVEL = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Siblings a level that are planned with."""

EXPECTED = (0.0, 0.2, 0.35, 0.45, 0.5, 0.6, 0.7, 0.75)
"""The share of rejections that the best so many of them should mend, before it is seen."""

KEPT, DOUBT = 0.99, 8.0


class SiblingPlan:
    """Learns from every rejection, verified or not, how often siblings are right.

    ``counts`` (ceiling + 1, C) are the numbers of siblings a request that are planned with, by γ. Of a policy that
    drafts chains (``used`` False) that is none. ``basis`` (2, C) is what an accepted token and what a rejected request
    add to the tokens of a round, with each of them.
    """

    def __init__(self, ceiling: int, used: bool) -> None:
        self.used = used
        per_level = PER_LEVEL if used else PER_LEVEL[:1]
        self.counts = np.rint(np.outer(np.arange(ceiling + 1), per_level)).astype(np.int64)
        self._shares = [Ratio(share, DOUBT, KEPT) for share in EXPECTED[1 : len(per_level)]]
        self.basis = np.ones((2, len(per_level)))
        self.basis[1] = EXPECTED[: len(per_level)]
        self._ranks = [Ratio(1.0, DOUBT / 4, KEPT) for _ in range(SIBLINGS)]
        self._hit_rates = np.ones(SIBLINGS)

    def values(self, signals: Floats) -> Floats:
        """Of every sibling of the drafted levels, (n, γ, SIBLINGS); ``signals`` (n, γ, 1 + BEST)."""
        reach = np.ones(signals.shape[:2])
        np.multiply.accumulate(signals[:, :-1, 1], axis=1, out=reach[:, 1:])
        return sibling_values(reach, signals[:, :, 2:], self._hit_rates)

    def learn(self, outcome: Round, values: Floats) -> None:
        """A round with these ``values`` of its siblings has ended."""
        size, gamma = outcome.size, outcome.gamma
        if not gamma:
            return
        accepted, ranks = np.asarray(outcome.accepted), np.asarray(outcome.ranks)
        reached = np.arange(gamma) <= accepted[:, None]
        if outcome.plain:
            reached[[*outcome.plain]] = False
        best = np.stack([level[:, 2:] for level in outcome.levels[:gamma]], axis=1)
        offered = (best * reached[:, :, None]).sum(axis=(0, 1))
        for place, ratio in enumerate(self._ranks):
            ratio.add(float((ranks == place + 1).sum()) / size, float(offered[place]) / size)
        rejected = ranks > 0
        right = np.nonzero(rejected & (ranks < BEST))[0]
        flat = values[:, :gamma].reshape(size, -1)
        own = values[right, accepted[right], ranks[right] - 1]
        before = (flat[right] > own[:, None]).sum(axis=1)
        for count, ratio in zip(self.counts[gamma, 1:], self._shares, strict=True):
            ratio.add(float((before < count).sum()) / size, float(rejected.sum()) / size)
        self._hit_rates = np.array([ratio.value for ratio in self._ranks])
        self.basis[1, 1:] = [ratio.value for ratio in self._shares]

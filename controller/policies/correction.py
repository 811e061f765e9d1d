"""What the controller lastingly gets wrong for what is served, learnt round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from speckv.controller.arrays import Floats
from speckv.controller.estimates import Ratio
from speckv.controller.features import FURTHEST

CALM, DOUBT = 0.995, 8.0
"""Weight that a ratio keeps per later round, and that of its starting value 1: it is for a lasting bias."""

LEAST = 1e-6
"""Of a probability that is divided by."""


class Correction:
    """Three ratios of what came to what was predicted.

    ``first`` is of a round's first level before it is drafted, ``seen`` of levels by their own signals, and ``further``
    of every level beyond these, where the one before it was right. Of another kind of draft than the controller was
    trained on the three differ: a weak head of the target has fewer right tokens than most drafts, and tells as well
    as any which they are.
    """

    def __init__(self) -> None:
        self.first, self.seen, self.further = (Ratio(1.0, DOUBT, CALM) for _ in range(3))
        self._factors = np.ones((2, FURTHEST + 1))

    @property
    def values(self) -> dict[str, float]:
        """The three, by name."""
        return {"first": self.first.value, "seen": self.seen.value, "further": self.further.value}

    def totals(self, answers: Floats, drafted: int) -> list[float]:
        """Σ over n requests of the corrected ``answers`` (n, K): P(accepted ≥ j) as predicted after ``drafted`` levels.

        j is ``drafted`` and on, or 1 and on where nothing is drafted.
        """
        corrected = np.minimum(answers * self._factors[min(drafted, 1), : answers.shape[1]], 1.0)
        found: list[float] = (corrected[0] if len(corrected) == 1 else np.add.reduce(corrected, 0)).tolist()
        return found

    def learn(self, asked: Mapping[int, Floats], accepted: Sequence[int], gamma: int) -> None:
        """Compare the answers (n, K) in ``asked``, by how many levels were drafted, with ``accepted`` of ``gamma``.

        Of a level that was seen and left out, what its own signals said stands for what would have come: to leave that
        out, too, would be to judge by the levels that looked well.
        """
        reached = np.asarray(accepted)
        left_out = gamma + 1 in asked
        if gamma:
            _add(self.first, reached >= 1, asked[0][:, 0])
        elif left_out:
            _add(self.first, np.minimum(self.seen.value * asked[1][:, 0], 1.0), asked[0][:, 0])
        verified = [level for level in asked if 0 < level <= gamma]
        if verified:
            _add(self.seen, reached >= np.array(verified)[:, None], np.array([asked[at][:, 0] for at in verified]))
        hits, hopes = [], []
        for level in range(2, gamma + 1 + left_out):
            before = max(drafted for drafted in asked if drafted < level)
            if level - before >= asked[before].shape[1]:
                break  # deeper than was looked ahead
            given, then = asked[before][:, level - before - 1], asked[before][:, level - before]
            alive = reached >= level - 1
            hopes.append(_share(then, given) * alive)
            hits.append(
                (reached >= level) if level <= gamma else _share(asked[level][:, 0], asked[gamma][:, 0]) * alive
            )
        if hits:
            _add(self.further, np.array(hits, dtype=float), np.array(hopes))
        further = self.further.value ** np.arange(FURTHEST + 1)
        self._factors[0], self._factors[1] = self.first.value * further, self.seen.value * further


def _add(ratio: Ratio, came: Floats | np.ndarray, foreseen: Floats) -> None:
    """Of levels and requests (…, n); a round weighs as much as one request's."""
    size = came.shape[-1]
    ratio.add(float(came.sum()) / size, float(foreseen.sum()) / size)


def _share(of: Floats, whole: Floats) -> Floats:
    return np.minimum(of / np.maximum(whole, LEAST), 1.0)

"""The tree that a round drafts: a spine with siblings beside it, and which of these are worth a row of the verify."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speckv.controller.arrays import Floats
from speckv.controller.policy import Siblings


def sibling_values(reach: Floats, probabilities: Floats, hit_rates: Floats) -> Floats:
    """What each sibling adds to the tokens a round emits, (n, γ, K).

    ``reach`` (n, γ) is P(the spine is accepted up to a depth), ``probabilities`` (n, γ, K) are the draft's of each
    sibling, and ``hit_rates`` (K,) how much more often than those say a rank was right. A sibling is right only where
    the spine is rejected beside it; then the round emits one token more: the sibling, and the target's own after it.
    """
    values: Floats = reach[:, :, None] * (probabilities * hit_rates)
    return values


def best_count(values: Floats, allowed: Sequence[int], verify_ms: Floats, rate: float) -> int:
    """How many siblings every request should verify, one of ``allowed``, for most Σ values − rate · extra verify time.

    ``values`` (n, γ, K); ``verify_ms[j]`` is the verify's time with j siblings in all, j ≥ 0, for as many as there are;
    ``rate`` is in tokens per ms. It is one number, since forwards have as many rows of every request. Of each request
    the most valuable are best, so all numbers are looked at: times have steps, and the first that does not pay may be
    followed by free ones.
    """
    size = len(values)
    counts = np.fromiter(allowed, dtype=np.intp)
    least_first = np.sort(values.reshape(size, -1), axis=1).sum(axis=0)
    best = np.zeros(len(least_first) + 1)
    np.cumsum(least_first[::-1], out=best[1:])
    net = best[counts] - rate * (verify_ms[size * counts] - verify_ms[0])
    return allowed[int(net.argmax())]


def best_common(values: Floats, count: int) -> Siblings:
    """The ``count`` most valuable siblings of every request."""
    rows = values.reshape(len(values), -1)
    chosen = np.zeros(rows.shape, dtype=np.bool_)
    if count:
        np.put_along_axis(chosen, (-rows).argsort(axis=1, kind="stable")[:, :count], True, axis=1)
    return chosen.reshape(values.shape)

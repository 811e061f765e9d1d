"""Ratios of tokens per second between policies, over prompts, with paired-bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEAST_ROOM = 0.02
"""Below this share of possible gain over the best fixed γ, ``oracle_share`` says nothing."""

AGAINST = {
    "vs_plain": "plain",
    "vs_fixed4": "fixed-4",
    "vs_hf_default": "hf-default",
    "vs_sglang_adaptive": "sglang-adaptive",
}
"""The policies that all are compared with where they were run, by the ratio's name."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Timed:
    """What one policy took: ``tokens`` and ``ms`` of each prompt, (P,), in the same order for all policies."""

    tokens: Array
    ms: Array


def rows(
    timed: Mapping[str, Timed],
    tasks: Sequence[str],
    fixed: Sequence[str],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row per policy and task, "all" first.

    ``vs_best_fixed`` and those of AGAINST are ratios of Σtokens / Σtime, None where there is no such policy. The
    best of ``fixed`` is chosen in hindsight on all prompts, and anew in each resample (``ci``: 95 % intervals).
    ``oracle_share`` = (policy − best fixed) / (clairvoyant − best fixed).
    """
    count = len(tasks)
    weights = np.concatenate((np.ones((1, count)), resamples(count, seed)))  # the first is the sample itself
    rates = {name: (weights @ one.tokens) / (weights @ one.ms) for name, one in timed.items()}
    best = np.argmax([rates[name] for name in fixed], axis=0)
    found = []
    for task in ("all", *dict.fromkeys(tasks)):
        member = np.array([task in ("all", of) for of in tasks], dtype=float)
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may have no prompt of a task
            here = {n: (weights * member) @ t.tokens / ((weights * member) @ t.ms) for n, t in timed.items()}
            bar = np.take_along_axis(np.stack([here[name] for name in fixed]), best[None, :], axis=0)[0]
            bars = {"vs_best_fixed": bar} | {key: here.get(of) for key, of in AGAINST.items()}
            for name in timed:
                row: dict[str, Any] = {"policy": name, "task": task, "tokens_per_s": float(1e3 * here[name][0])}
                ratios = {key: here[name] / other for key, other in bars.items() if other is not None}
                row |= {key: float(ratios[key][0]) if key in ratios else None for key in bars}
                row["best_fixed"] = fixed[int(best[0])]
                row["oracle_share"], share = _share(here[name], bar, here.get("clairvoyant"))
                ratios |= {} if share is None else {"oracle_share": share}
                row["ci"] = {key: interval(values[1:]) for key, values in ratios.items()}
                found.append(row)
    return found


def _share(rate: Array, bar: Array, bound: Array | None) -> tuple[float | None, Array | None]:
    if bound is None or bound[0] / bar[0] - 1 < LEAST_ROOM:
        return None, None
    shares = (rate - bar) / (bound - bar)
    return float(shares[0]), shares


def resamples(count: int, seed: int = 0) -> Array:
    """(RESAMPLES, count): how often each of ``count`` prompts is drawn, as many with replacement."""
    draws = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    return np.stack([np.bincount(draw, minlength=count) for draw in draws]).astype(float)


def interval(values: Array) -> list[float]:
    """The bounds of the middle 95 % of ``values``."""
    return [float(bound) for bound in np.nanpercentile(values, (2.5, 97.5))]


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of positive ratios."""
    return float(np.exp(np.mean(np.log(values))))

"""Why speculation pays or does not: what a round takes and brings, and what the best draft could bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from speckv.benchmarks.bench.plan import OURS, PLAIN
from speckv.benchmarks.report.reading import Entry, PairCosts, Place, Result, Row, Step
from speckv.benchmarks.report.words import fixed_gamma
from speckv.controller.curve import Curve

GAMMAS = range(1, 9)
BINS = 10
BAD_CALIBRATION = 0.1
"""Expected error of predicted probabilities from which training on one's own models is advised."""
BAD_COSTS = 0.25
"""Relative error of predicted round times from which calibrating anew is advised."""
LEAST_PREDICTIONS, LEAST_STEPS = 100, 20


@dataclass(frozen=True)
class Economics:
    """A pair's costs against one plain step, and its acceptance.

    ``draft_share`` is a draft token's time as a share of a verify of one row; ``acceptance`` the share of draft tokens
    accepted among those reached, that is, up to and with the first refused one. ``best`` is the constant γ with the
    highest expected gain (1 − a^(γ+1)) / (1 − a) · t(0) / t(γ) and that gain; ``perfect`` the same with a = 1.
    """

    draft_share: float
    verify_growth: tuple[int, float]
    acceptance: float
    best: tuple[int, float]
    perfect: tuple[int, float]


def economics(result: Result, place: Place) -> Economics | None:
    """Of a place with calibrated costs and rounds that drafted; None elsewhere.

    Acceptance is taken from the longest fixed γ measured, since an adaptive policy drafts where tokens are likely.
    """
    costs = result.costs.get(place.regime) if place.framework == "transformers" and place.concurrency == 1 else None
    fixed = [policy for policy in result.at(place) if fixed_gamma(policy)]
    chosen = max(fixed, key=lambda policy: fixed_gamma(policy) or 0, default=OURS)
    share = acceptance(result.entries_at(place, chosen))
    if costs is None or share is None:
        return None
    verify = Curve(costs.verify_ms)
    plain = verify.time(1)
    gain = {gamma: plain / round_ms(costs, gamma) for gamma in GAMMAS}
    expected = {gamma: sum(share**i for i in range(gamma + 1)) * gain[gamma] for gamma in GAMMAS}
    perfect = {gamma: (gamma + 1) * gain[gamma] for gamma in GAMMAS}
    best, most = max(expected, key=expected.__getitem__), max(perfect, key=perfect.__getitem__)
    growth = (best + 1, verify.time(best + 1) / plain)
    return Economics(costs.draft_ms / plain, growth, share, (best, expected[best]), (most, perfect[most]))


def round_ms(costs: PairCosts, gamma: int, siblings: int = 0, drafted: int = 0) -> float:
    """A round that verifies a spine of ``gamma`` tokens and ``siblings``, having ``drafted`` more levels than that."""
    return (gamma + drafted) * costs.draft_ms + Curve(costs.verify_ms).time(1 + gamma + siblings)


def acceptance(entries: Sequence[Entry]) -> float | None:
    """Accepted tokens among those the target came to judge; None where no rounds are stored."""
    accepted = sum(step.accepted for entry in entries for step in entry.steps)
    refused = sum(step.accepted < step.gamma for entry in entries for step in entry.steps)
    return accepted / (accepted + refused) if accepted + refused else None


def round_in_plain_steps(row: Row) -> float:
    """How many tokens plain decoding writes in the time of one of the policy's rounds: τ / (rate against plain)."""
    return (row.tau or 0) / row.vs_plain


@dataclass(frozen=True)
class Calibration:
    """Bins of predicted probabilities: mean prediction, share that came true, count; ``error`` is the mean of their
    distances, weighted with counts (expected calibration error); ``brier`` the mean squared error."""

    bins: list[tuple[float, float, int]]
    error: float
    brier: float
    count: int


def calibration(entries: Sequence[Entry]) -> Calibration | None:
    """Of all predictions in ``entries``; None where there are none."""
    pairs = np.array([one for entry in entries for one in entry.predicted], dtype=float).reshape(-1, 2)
    if not len(pairs):
        return None
    said, happened = pairs.T
    of = np.minimum((said * BINS).astype(int), BINS - 1)
    bins = [
        (float(said[of == b].mean()), float(happened[of == b].mean()), int((of == b).sum()))
        for b in range(BINS)
        if (of == b).any()
    ]
    error = sum(count * abs(mean - share) for mean, share, count in bins) / len(pairs)
    return Calibration(bins, error, float(((said - happened) ** 2).mean()), len(pairs))


@dataclass(frozen=True)
class Fit:
    """Round times by γ: (γ, median predicted ms, quartiles of the measured ms, rounds); ``error`` is the median over
    rounds of the relative distance of the measured median of its γ from the predicted one."""

    points: list[tuple[int, float, tuple[float, float, float], int]]
    error: float

    @property
    def rounds(self) -> int:
        return sum(point[3] for point in self.points)


def cost_fit(result: Result, regime: str) -> Fit | None:
    """Of a regime with calibrated costs and timed rounds; None elsewhere."""
    rounds: dict[int, list[Step]] = {}
    for entry in result.entries:
        if entry.regime == regime and entry.framework == "transformers" and entry.policy != PLAIN:
            for step in entry.steps:
                rounds.setdefault(step.gamma, []).append(step)
    if regime not in result.costs or not rounds:
        return None
    points = []
    for gamma, steps in sorted(rounds.items()):
        costs = result.costs[regime]
        said = median(round_ms(costs, gamma, step.siblings, step.drafted - gamma) for step in steps)
        low, middle, high = np.percentile([step.draft_ms + step.verify_ms for step in steps], (25, 50, 75)).tolist()
        points.append((gamma, said, (low, middle, high), len(steps)))
    errors = [abs(spread[1] / said - 1) for _, said, spread, count in points for _ in range(count)]
    return Fit(points, median(errors))

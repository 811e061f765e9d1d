"""What a policy would have realised on the released steps: step costs and the matched-action estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speckv.benchmarks.paper.data import GAMMAS, Release
from speckv.benchmarks.paper.decision import best_for_throughput
from speckv.benchmarks.paper.published import COMPRESSIONS
from speckv.controller.arrays import Floats, Ints

RESAMPLES = 4000


@dataclass(frozen=True)
class StepTime:
    """t(γ) = ``base_ms`` + ``token_ms`` · γ of one compression, and the share of variance it explains."""

    base_ms: float
    token_ms: float
    r2: float


def fit_step_times(release: Release) -> dict[str, StepTime]:
    """Least squares over the runs of a compression of time per step against γ; no single step was timed."""
    times = {}
    for compression in COMPRESSIONS:
        runs = [run for run in release.experiments if run["compression"] == compression]
        gammas = np.array([run["gamma"] for run in runs], dtype=np.float64)
        taken = np.array([1e3 * run["elapsed_sec"] / run["num_steps"] for run in runs])
        slope, base = np.polyfit(gammas, taken, 1)
        left = taken - base - slope * gammas
        times[compression] = StepTime(float(base), float(slope), float(1 - left.var() / taken.var()))
    return times


def step_ms(times: Mapping[str, StepTime], compressions: Sequence[str]) -> Floats:
    """(n, 4): the fitted time of a step at each of GAMMAS, one row per entry of ``compressions``."""
    table = {c: [time.base_ms + time.token_ms * gamma for gamma in GAMMAS] for c, time in times.items()}
    return np.array([table[compression] for compression in compressions])


def measured_rates(release: Release) -> dict[str, dict[str, float]]:
    """Tokens per second of the recorded runs themselves, Σ tokens / Σ elapsed, by compression and γ."""
    rates: dict[str, dict[str, float]] = {}
    for compression in COMPRESSIONS:
        rates[compression] = {}
        for gamma in GAMMAS:
            runs = [r for r in release.experiments if (r["compression"], r["gamma"]) == (compression, gamma)]
            rates[compression][str(gamma)] = sum(r["num_tokens"] for r in runs) / sum(r["elapsed_sec"] for r in runs)
    return rates


def own_throughput(tokens: Floats, times: Floats) -> float:
    """ρ, tokens per ms, of the policy that maximises it: the fixed point of Dinkelbach's iteration.

    ``tokens`` and ``times`` (n, 4) are what is expected of each step at each of GAMMAS.
    """
    gammas = np.array(GAMMAS, dtype=np.float64)
    everyone = np.arange(len(tokens))
    rate = float(tokens[:, 0].sum() / times[:, 0].sum())
    for _ in range(100):  # it converges superlinearly; a handful is the rule
        chosen = best_for_throughput((tokens - 1) / gammas, gammas, times, rate)
        improved = float(tokens[everyone, chosen].sum() / times[everyone, chosen].sum())
        if improved <= rate * (1 + 1e-12):
            break
        rate = improved
    return rate


def realised(release: Release, test: Ints, choices: Mapping[str, Ints], times: Floats) -> dict[str, Any]:
    """Matched-action estimate of each policy of ``choices`` on the steps ``test``.

    ``choices`` maps a policy to its index into GAMMAS for each of the m steps of ``test``; ``times`` (m, 4)
    are the step times. Only steps that were recorded with the γ which the policy asks for count, with the
    tokens they really produced. Gives per policy, over all and by compression: how many steps count (``n``),
    tokens per step, tokens per second, the same ones with each step weighted by 1 / (share of its γ among the
    records of its compression), and its tokens per second relative to Fixed-4 and to the best fixed γ in
    hindsight, in percent. ``overall`` is the geometric mean over compressions. The 95 % intervals resample
    prompts and choose the best fixed γ anew each time.
    """
    recorded = np.array([GAMMAS.index(gamma) for gamma in release.gammas[test]])
    compressions, prompts = release.compressions[test], release.prompts[test]
    tokens, spent = release.tokens[test], times[np.arange(len(test)), recorded]
    weights = _inverse_shares(recorded, compressions)
    report: dict[str, Any] = {name: {"by_compression": {}} for name in choices}
    shape = (3, len(choices), len(COMPRESSIONS), int(release.prompts.max()) + 1)
    sums = np.zeros(shape)  # tokens, time and steps by prompt
    for p, (name, chosen) in enumerate(choices.items()):
        counts = chosen == recorded
        report[name] |= _rates(tokens, spent, weights, counts)
        for c, compression in enumerate(COMPRESSIONS):
            mine = counts & (compressions == compression)
            report[name]["by_compression"][compression] = _rates(tokens, spent, weights, mine)
            for i, values in enumerate((tokens, spent, np.ones(len(test)))):
                sums[i, p, c] = np.bincount(prompts[mine], values[mine], minlength=shape[3])
    _compare(report, list(choices), sums)
    return report


def _inverse_shares(recorded: Ints, compressions: Any) -> Floats:
    """Short γ need more steps for the same text, so they are over-represented; 1 / share undoes that."""
    weights = np.empty(len(recorded))
    for compression in COMPRESSIONS:
        mine = compressions == compression
        share = np.bincount(recorded[mine], minlength=len(GAMMAS)) / mine.sum()
        weights[mine] = 1 / share[recorded[mine]]
    return weights


def _rates(tokens: Floats, spent: Floats, weights: Floats, counts: Any) -> dict[str, Any]:
    if not counts.any():
        nothing = {"tokens_per_step": None, "tokens_per_s": None}
        return {"n": 0, **nothing, "weighted": nothing}
    kept, time, weight = tokens[counts], spent[counts], weights[counts]
    return {
        "n": int(counts.sum()),
        "tokens_per_step": float(kept.mean()),
        "tokens_per_s": float(1e3 * kept.sum() / time.sum()),
        "weighted": {
            "tokens_per_step": float((weight * kept).sum() / weight.sum()),
            "tokens_per_s": float(1e3 * (weight * kept).sum() / (weight * time).sum()),
        },
    }


def _compare(report: dict[str, Any], names: Sequence[str], sums: Floats) -> None:
    """Add the ratios; ``sums`` (3, policies, compressions, prompts) are tokens, time and steps."""
    prompts = sums.shape[3]
    resamples = np.random.default_rng(0).multinomial(prompts, np.full(prompts, 1 / prompts), RESAMPLES)
    draws = np.concatenate([np.ones((1, prompts)), resamples])  # the first one is the estimate itself
    with np.errstate(divide="ignore", invalid="ignore"):
        totals = np.einsum("kpcq,bq->kbpc", sums, draws)
        rates = totals[0] / totals[1]  # (1 + RESAMPLES, policies, compressions)
        lengths = totals[0].sum(axis=2) / totals[2].sum(axis=2)  # tokens per step over all compressions
    fixed4, fixed = names.index("Fixed-4"), [names.index(f"Fixed-{gamma}") for gamma in GAMMAS]
    bases = {"vs_fixed4": rates[:, fixed4], "vs_best_fixed": rates[:, fixed].max(axis=1)}
    weighted = _weighted_rates(report)
    for p, name in enumerate(names):
        overall: dict[str, Any] = {"tokens_per_step_vs_fixed4": _interval(lengths[:, p] / lengths[:, fixed4])}
        ratio = weighted[p] / weighted[fixed].max(axis=0)
        report[name]["overall"] = overall
        mean = float(np.exp(np.log(ratio).mean()))
        overall["weighted_vs_best_fixed_pct"] = 100 * (mean - 1) if np.isfinite(mean) else None
        for key, base in bases.items():
            ratio = rates[:, p] / base
            for c, compression in enumerate(COMPRESSIONS):
                report[name]["by_compression"][compression][key] = _interval(ratio[:, c])
            overall[key] = _interval(np.exp(np.log(ratio).mean(axis=1)))


def _weighted_rates(report: dict[str, Any]) -> Floats:
    """(policies, compressions): weighted tokens per second, NaN where no step counts."""
    rates = [[part["weighted"]["tokens_per_s"] for part in mine["by_compression"].values()] for mine in report.values()]
    return np.array(rates, dtype=np.float64)


def _interval(ratios: Floats) -> dict[str, float] | None:
    """Percent above the base, with the 95 % interval of the resamples in which it is defined."""
    percent = 100 * (ratios - 1)
    if not np.isfinite(percent[0]):
        return None
    low, high = np.percentile(percent[1:][np.isfinite(percent[1:])], [2.5, 97.5])
    return {"pct": float(percent[0]), "lower": float(low), "upper": float(high)}

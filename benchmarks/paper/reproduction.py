"""The release's own evaluation: same split, seeds, models and arithmetic, on its own data.

The procedure is that of the release's notebook Phase4_Final_Evaluation. Steps are split 80/20 at random
(seed 42) within each compression and task; the predictors are compared on the test steps; then the fast one
(MLP-16) and the accurate one (RF-100) are fitted again on *all* steps, and every policy is scored on the test
steps by what the fitted predictor itself expects: 1 + γ · clip(r̂(signals, compression, γ), 0, 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from speckv.benchmarks.paper.data import GAMMAS, Release
from speckv.benchmarks.paper.predictors import (
    SEED,
    accuracy,
    decision_us,
    importances,
    predicted_tokens,
    predictors,
    split,
)
from speckv.benchmarks.paper.published import COMPRESSIONS, TASKS
from speckv.controller.arrays import Floats, Ints

RESAMPLES = 5000
PAIRED_RESAMPLES = 10000


def most_tokens(release: Release) -> dict[str, int]:
    """The γ with most recorded tokens per step, by compression: the paper's Fixed-best."""
    best = {}
    for compression in COMPRESSIONS:
        mine = release.compressions == compression
        means = [release.tokens[mine & (release.gammas == gamma)].mean() for gamma in GAMMAS]
        best[compression] = GAMMAS[int(np.argmax(means))]
    return best


def reproduce(release: Release) -> dict[str, Any]:
    """Everything the release's final evaluation prints, unrounded, as JSON-able values."""
    train, test = split(release)
    x, y = release.features, release.rates
    models = predictors()
    table, decisions = {}, {}
    for name, model in models.items():
        model.fit(x[train], y[train])
        table[name] = accuracy(y[test], np.clip(model.predict(x[test]), 0, 1))
        decisions[name] = decision_us(model, x[test][:1])
    fast = predicted_tokens(models["MLP-16"].fit(x, y), x[test])
    accurate = predicted_tokens(models["RF-100"].fit(x, y), x[test])
    refitted = {name: accuracy(y[test], np.clip(models[name].predict(x[test]), 0, 1)) for name in ("MLP-16", "RF-100")}
    expected = _expected(release, test, fast, accurate)
    means = {name: float(values.mean()) for name, values in expected.items()}
    return {
        "test_mse": table["MLP-16"]["mse"],
        "test_corr": table["MLP-16"]["corr"],
        "fixed4": means["Fixed-4"],
        "fixed_best": means["Fixed-best"],
        "task_oracle": means["Task-oracle"],
        "speckv_fast": means["SpecKV-fast"],
        "speckv_accurate": means["SpecKV-accurate"],
        "improvement_pct": _gain(means["SpecKV-fast"], means["Fixed-4"]),
        "train_steps": len(train),
        "test_steps": len(test),
        "table1": _table1(release.compressions[test], expected),
        "table2": _table2(release.compressions[test], release.tasks[test], expected),
        "predictors": table,
        "refitted": refitted,
        "decision_us": decisions,
        "bootstrap": _bootstrap(expected),
        "importances": importances(release),
    }


def _expected(release: Release, test: Ints, fast: Floats, accurate: Floats) -> dict[str, Floats]:
    """Expected tokens of every test step under each of POLICIES; all but the last ask the fast predictor."""
    everyone = np.arange(len(test))
    compressions, tasks = release.compressions[test], release.tasks[test]
    best = {c: GAMMAS.index(gamma) for c, gamma in most_tokens(release).items()}
    oracle = {key: GAMMAS.index(gamma) for key, gamma in release.best_gamma.items()}
    return {
        "Fixed-4": fast[:, GAMMAS.index(4)],
        "Fixed-best": fast[everyone, [best[c] for c in compressions]],
        "Task-oracle": fast[everyone, [oracle[c, t] for c, t in zip(compressions, tasks, strict=True)]],
        "SpecKV-fast": fast.max(axis=1),
        "SpecKV-accurate": accurate.max(axis=1),
    }


def _gain(value: float, base: float) -> float:
    return 100 * (value / base - 1)


def _table1(compressions: NDArray[np.str_], expected: dict[str, Floats]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for compression in (*COMPRESSIONS, "Overall"):
        mine = (compressions == compression) | (compression == "Overall")
        rows.append({"compression": compression, **{name: float(v[mine].mean()) for name, v in expected.items()}})
    return rows


def _table2(
    compressions: NDArray[np.str_], tasks: NDArray[np.str_], expected: dict[str, Floats]
) -> list[dict[str, Any]]:
    rows = []
    for compression in COMPRESSIONS:
        for task in TASKS:
            mine = (compressions == compression) & (tasks == task)
            fixed, chosen = (float(expected[name][mine].mean()) for name in ("Fixed-4", "SpecKV-fast"))
            rows.append(
                {
                    "compression": compression,
                    "task": task,
                    "Fixed-4": fixed,
                    "SpecKV": chosen,
                    "improvement_pct": _gain(chosen, fixed),
                }
            )
    return rows


def _bootstrap(expected: dict[str, Floats]) -> dict[str, Any]:
    """95 % intervals of means over test steps, and the paired test, with the release's random stream."""
    stream = np.random.RandomState(SEED)
    intervals = {}
    for name, values in expected.items():
        means = np.sort(_resampled(stream, values, RESAMPLES))
        low, high = means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]
        intervals[name] = {"mean": float(values.mean()), "lower": float(low), "upper": float(high)}
    differences = expected["SpecKV-fast"] - expected["Fixed-4"]
    means = _resampled(stream, differences, PAIRED_RESAMPLES)
    paired = {
        "mean_difference": float(differences.mean()),
        "lower": float(np.percentile(means, 2.5)),
        "upper": float(np.percentile(means, 97.5)),
        "p_value": float(np.mean(means <= 0)),
    }
    return {"intervals": intervals, "paired": paired}


def _resampled(stream: np.random.RandomState, values: Floats, resamples: int, chunk: int = 500) -> Floats:
    """Means of ``resamples`` bootstrap samples, in chunks so that the indices stay small."""
    count = len(values)
    draws = [values[stream.randint(0, count, (chunk, count))].mean(axis=1) for _ in range(resamples // chunk)]
    return np.concatenate(draws)

"""The release's earlier evaluation (its phase 3: a forest that classifies, on another split), reproduced."""

from __future__ import annotations

from typing import Any

import numpy as np

from speckv.benchmarks.paper.data import GAMMAS, Release
from speckv.benchmarks.paper.decision import expected_tokens
from speckv.benchmarks.paper.predictors import SEED, accuracy
from speckv.benchmarks.paper.published import COMPRESSIONS, TASKS
from speckv.benchmarks.paper.reproduction import most_tokens


def reproduce_phase3(release: Release) -> dict[str, Any]:
    """Validation accuracy of its four predictors, and its 48 policy cells (expected tokens per step)."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPRegressor

    strata = np.array([f"{c}_{t}" for c, t in zip(release.compressions, release.tasks, strict=True)])
    train, rest = train_test_split(np.arange(len(strata)), test_size=0.3, random_state=SEED, stratify=strata)
    validation, test = train_test_split(rest, test_size=0.5, random_state=SEED, stratify=strata[rest])
    x, y = release.features, release.rates
    regressors = {
        "Ridge": Ridge(alpha=1.0),
        "MLP-small": MLPRegressor(hidden_layer_sizes=(32,), max_iter=500, random_state=SEED),
        "MLP-medium": MLPRegressor(hidden_layer_sizes=(64, 32), max_iter=500, random_state=SEED),
    }
    table = {}
    for name, model in regressors.items():
        model.fit(x[train], y[train])
        table[name] = accuracy(y[validation], np.clip(model.predict(x[validation]), 0, 1))
    forest = RandomForestClassifier(n_estimators=100, random_state=SEED)
    forest.fit(x[train], y[train] > 0.5)
    table["RandomForest"] = accuracy(y[validation], forest.predict_proba(x[validation])[:, 1])
    both = np.concatenate([train, validation])
    forest.fit(x[both], y[both] > 0.5)  # P(more than half accepted) then stands for the acceptance rate
    columns = []
    for gamma in GAMMAS:
        candidate = x[test]
        candidate[:, 5] = gamma
        columns.append(forest.predict_proba(candidate)[:, 1])
    return {"predictors": table, "policies": _cells(release, test, np.stack(columns, axis=1))}


def _cells(release: Release, test: Any, rates: Any) -> list[dict[str, Any]]:
    tokens = expected_tokens(rates, np.array(GAMMAS, dtype=np.float64))
    compressions, tasks = release.compressions[test], release.tasks[test]
    best = most_tokens(release)
    cells = []
    for policy in ("Fixed-4", "Fixed-best", "Task-oracle", "SpecKV"):
        for compression in COMPRESSIONS:
            for task in TASKS:
                gamma = {"Fixed-4": 4, "Fixed-best": best[compression]}.get(
                    policy, release.best_gamma[compression, task]
                )
                chosen = tokens.max(axis=1) if policy == "SpecKV" else tokens[:, GAMMAS.index(gamma)]
                mean = float(chosen[(compressions == compression) & (tasks == task)].mean())
                cells.append({"policy": policy, "compression": compression, "task": task, "mean_expected_tokens": mean})
    return cells

"""The predictors that the paper compares: how they are made, split for, judged and timed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from speckv.benchmarks.paper.data import GAMMAS, Release
from speckv.benchmarks.paper.decision import expected_tokens
from speckv.controller.arrays import Floats, Ints
from speckv.controller.features import FEATURES

SEED = 42
TIMING_SECONDS = 0.6
"""Per predictor: enough decisions for a median, and short beside everything else."""


def predictors() -> dict[str, Any]:
    """The five that the paper compares, unfitted, with its settings."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import Ridge
    from sklearn.neural_network import MLPRegressor

    return {
        "Ridge": Ridge(alpha=1.0),
        "MLP-16": MLPRegressor(hidden_layer_sizes=(16,), max_iter=500, random_state=SEED),
        "MLP-32": MLPRegressor(hidden_layer_sizes=(32,), max_iter=500, random_state=SEED),
        "RF-10": RandomForestRegressor(n_estimators=10, max_depth=8, random_state=SEED),
        "RF-100": RandomForestRegressor(n_estimators=100, random_state=SEED),
    }


def split(release: Release) -> tuple[Ints, Ints]:
    """Indices of the training and of the test steps; steps of one generation fall on both sides."""
    from sklearn.model_selection import train_test_split

    strata = [f"{c}_{t}" for c, t in zip(release.compressions, release.tasks, strict=True)]
    train, test = train_test_split(np.arange(len(strata)), test_size=0.2, random_state=SEED, stratify=strata)
    return train, test


def predicted_rates(model: Any, features: Floats) -> Floats:
    """The acceptance rate ``model`` expects at each of GAMMAS, (n, 4), in 0 … 1; ``features`` (n, 6)."""
    columns = []
    for gamma in GAMMAS:
        candidate = features.copy()
        candidate[:, 5] = gamma
        columns.append(np.clip(model.predict(candidate), 0, 1))
    return np.stack(columns, axis=1)


def predicted_tokens(model: Any, features: Floats) -> Floats:
    """The tokens that ``model`` expects of a step with each of GAMMAS, (n, 4)."""
    return expected_tokens(predicted_rates(model, features), np.array(GAMMAS, dtype=np.float64))


def accuracy(rates: Floats, predicted: Floats) -> dict[str, float]:
    """Mean squared error and Pearson correlation with the true acceptance ``rates``."""
    return {
        "mse": float(np.mean((predicted - rates) ** 2)),
        "corr": float(np.corrcoef(rates, predicted)[0, 1]),
    }


def importances(release: Release) -> dict[str, float]:
    """Gini importances of the release's forest, which classifies "more than half accepted" on all steps."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_estimators=100, random_state=SEED).fit(release.features, release.rates > 0.5)
    return {name: float(value) for name, value in zip(FEATURES, forest.feature_importances_, strict=True)}


def decision_us(model: Any, sample: Floats) -> float:
    """Median time of one decision as the release makes it: four ``predict`` calls on one row each, in µs."""
    took: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < TIMING_SECONDS or len(took) < 12:
        start = time.perf_counter()
        for gamma in GAMMAS:
            row = sample.copy()
            row[0, 5] = gamma
            model.predict(row)
        took.append(time.perf_counter() - start)
    return float(np.median(took[len(took) // 10 :])) * 1e6  # the first tenth warms up

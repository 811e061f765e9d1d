"""Whether an exported graph says what the trained model says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

from speckv.controller.errors import SpecKVError
from speckv.export.forest import Forest
from speckv.export.graph import serialized, take_apart
from speckv.export.heads import Array

TOLERANCE = 1e-5
CLOSE_CALLS = 128
"""How many thresholds of a forest are tried with inputs that equal them, or are the next float32 to either side."""


def check_parity(heads: Mapping[str, Any], model: onnx.ModelProto, seed: int = 0) -> float:
    """Largest difference of ``model`` (onnxruntime) to the fitted ``heads`` on random, extreme and close inputs.

    Raises SpecKVError above TOLERANCE, so nothing wrong is ever exported.
    """
    generator = np.random.default_rng(seed)
    usual = generator.random((256, 5)) * [8, 1, 12, 1, 0] + [0, 0, 0, 0, 1] * generator.integers(0, 3, (256, 1))
    corners = np.array([[0, 1, 0, 1, 0], [12, 0, 12, 0, 2], [0, 0, 0, 0, 0], [1e3, 1, 1e3, 1, 2], [-1, 2, -1, 2, 1]])
    summed = usual * [1, -20, 1, 1, 1]  # where the survival head takes a sum of logarithms
    close = [
        _close_calls(head.estimator, generator)
        for head in take_apart(model).values()
        if isinstance(head.estimator, Forest)
    ]
    signals = np.concatenate((usual, summed, corners, *close), dtype=np.float32, casting="same_kind")
    gammas = np.arange(0, 21, dtype=np.float32)
    rows = np.concatenate(
        (np.repeat(signals, len(gammas), axis=0), np.tile(gammas, len(signals))[:, None]), axis=1, dtype=np.float32
    )
    session = onnxruntime.InferenceSession(serialized(model), providers=["CPUExecutionProvider"])
    answers = dict(zip(heads, session.run(list(heads), {"signals": signals, "gammas": gammas}), strict=True))
    worst = 0.0
    for name, estimator in heads.items():
        if hasattr(estimator, "predict_proba"):
            reference = estimator.predict_proba(rows)[:, 1]
        else:
            reference = np.clip(estimator.predict(rows), 0, 1)
        difference = float(np.abs(answers[name].ravel() - reference).max())
        if not difference <= TOLERANCE:
            raise SpecKVError(f"head {name}: ONNX differs from scikit-learn by {difference:.1e}; not exported")
        worst = max(worst, difference)
    return worst


def _close_calls(forest: Forest, generator: np.random.Generator) -> Array:
    """Signals (n, 5) in which one feature lies on a threshold of the forest or right beside it."""
    tried = np.flatnonzero((forest.below > 0) & (forest.features < 5))
    tried = generator.choice(tried, min(CLOSE_CALLS, len(tried)), replace=False)
    signals = (generator.random((3, len(tried), 5)) * [8, 1, 12, 1, 2]).astype(np.float32)
    exact = forest.thresholds[tried]
    for row, values in enumerate(
        (exact, np.nextafter(exact, np.float32(-np.inf)), np.nextafter(exact, np.float32(np.inf)))
    ):
        signals[row, np.arange(len(tried)), forest.features[tried]] = values
    return signals.reshape(-1, 5)

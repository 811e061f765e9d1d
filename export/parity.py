"""Whether an exported graph says what the trained model says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from speckv.controller.errors import SpecKVError
from speckv.export.forest import Forest
from speckv.export.graph import answering, assemble, serialized, take_apart
from speckv.export.heads import Array, Estimator
from speckv.export.pairing import HEADS

TOLERANCE = 1e-5
CLOSE_CALLS = 128
"""How many thresholds of a forest are tried with inputs that equal them, or are the next float32 to either side."""
USUAL = {
    "mean_draft_entropy": 8,
    "max_draft_entropy": 12,
    "log_draft_confidence": -20,
    "compression": 2,
    "drafted": 12,
}
"""How far a feature goes from 0; all others, to 1."""


def check_parity(heads: Mapping[str, Any], model: onnx.ModelProto, seed: int = 0) -> float:
    """Largest difference of ``model``, as written and as run, to the fitted ``heads`` on random, extreme, close inputs.

    Raises SpecKVError above TOLERANCE, so nothing wrong is ever exported.
    """
    generator = np.random.default_rng(seed)
    exported = take_apart(model)
    worst = 0.0
    for name, estimator in heads.items():
        signals, last, features = HEADS[name]
        scale = np.array([USUAL.get(feature, 1) for feature in features[:-1]])
        asked = _signals(exported[name].estimator, scale, generator)
        gammas = np.arange(0, 21, dtype=np.float32)
        written = _answers(assemble({name: exported[name]}), {signals: asked, last: gammas})
        run = _answers(answering(name, exported[name], gammas.tolist()), {signals: asked})
        rows = np.column_stack((np.repeat(asked, len(gammas), axis=0), np.tile(gammas, len(asked))))
        if hasattr(estimator, "predict_proba"):
            reference = estimator.predict_proba(rows)[:, 1]
        else:
            reference = np.clip(estimator.predict(rows), 0, 1)
        difference = max(float(np.abs(answers.ravel() - reference).max()) for answers in (written, run))
        if not difference <= TOLERANCE:
            raise SpecKVError(f"head {name}: ONNX differs from scikit-learn by {difference:.1e}; not exported")
        worst = max(worst, difference)
    return worst


def _answers(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(serialized(model), providers=["CPUExecutionProvider"])
    answers: Array = session.run(None, inputs)[0]
    return answers


def _signals(estimator: Estimator, scale: NDArray[np.int64], generator: np.random.Generator) -> Array:
    """Random, extreme and, for a forest, close rows (n, M) of all features but the last, M of ``scale``."""
    usual = generator.random((512, len(scale)))
    corners = np.array([[0], [1], [-1], [100]])
    rows = (np.concatenate((usual, np.broadcast_to(corners, (4, len(scale))))) * scale).astype(np.float32)
    return np.concatenate((rows, _close_calls(estimator, rows, generator))) if isinstance(estimator, Forest) else rows


def _close_calls(forest: Forest, rows: Array, generator: np.random.Generator) -> Array:
    """Some of ``rows``, in which one feature lies on a threshold of the forest or right beside it."""
    tried = np.flatnonzero((forest.below > 0) & (forest.features < rows.shape[1]))
    tried = generator.choice(tried, min(CLOSE_CALLS, len(tried)), replace=False)
    close = np.stack([rows[: len(tried)]] * 3)
    exact = forest.thresholds[tried]
    for row, values in enumerate(
        (exact, np.nextafter(exact, np.float32(-np.inf)), np.nextafter(exact, np.float32(np.inf)))
    ):
        close[row, np.arange(len(tried)), forest.features[tried]] = values
    return close.reshape(-1, rows.shape[1])

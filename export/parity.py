"""Whether an exported graph says what the trained model says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime

from speckv.controller.errors import SpecKVError

TOLERANCE = 1e-5


def check_parity(heads: dict[str, Any], model: onnx.ModelProto, seed: int = 0) -> float:
    """Largest difference of ``model`` (onnxruntime) to the fitted ``heads`` on random and extreme inputs.

    Raises SpecKVError above TOLERANCE, so nothing wrong is ever exported.
    """
    generator = np.random.default_rng(seed)
    usual = generator.random((256, 5)) * [8, 1, 12, 1, 0] + [0, 0, 0, 0, 1] * generator.integers(0, 3, (256, 1))
    corners = np.array([[0, 1, 0, 1, 0], [12, 0, 12, 0, 2], [0, 0, 0, 0, 0], [1e3, 1, 1e3, 1, 2], [-1, 2, -1, 2, 1]])
    signals = np.concatenate((usual, corners)).astype(np.float32)
    gammas = np.arange(0, 21, dtype=np.float32)
    rows = np.concatenate(
        (np.repeat(signals, len(gammas), axis=0), np.tile(gammas, len(signals))[:, None]),
        axis=1,
        dtype=np.float32,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
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

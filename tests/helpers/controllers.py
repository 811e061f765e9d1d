"""Small controllers from synthetic records, made once per test run."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import make_synthetic_rows, make_synthetic_sequences

from speckv.controller.training import Trained, train
from speckv.export.artefact import Artefact, Metadata, make_artefact
from speckv.export.convert import to_onnx
from speckv.export.weights import SHAPES

GAMMAS = (2, 4, 6, 8)


@cache
def trained(estimator: str = "mlp16", survival: bool = True) -> Trained:
    """Heads fitted to synthetic rows and sequences."""
    sequences = make_synthetic_sequences(prompts=12) if survival else ()
    return train(make_synthetic_rows(prompts=12), estimator=estimator, sequences=sequences)


def metadata(heads: list[str], **changes: Any) -> Metadata:
    return Metadata(heads=heads, gammas=list(GAMMAS), training={"metrics": {}}, versions={}, **changes)


@cache
def artefact(estimator: str = "mlp16", survival: bool = True) -> Artefact:
    fitted = trained(estimator, survival)
    return make_artefact(to_onnx(fitted.heads), metadata(list(fitted.heads)), estimator)


def published_arrays(dtype: Any = np.float64, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights as the paper publishes them."""
    generator = np.random.default_rng(seed)
    return {name: (generator.normal(size=shape) / 4).astype(dtype) for name, shape in SHAPES.items()}


def save_weights(path: Path, arrays: dict[str, np.ndarray], compressed: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path

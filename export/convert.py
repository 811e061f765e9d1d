"""From fitted scikit-learn models to a controller's graph, by way of skl2onnx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType

from speckv.controller.errors import SpecKVError
from speckv.export.graph import assemble
from speckv.export.heads import Head, read_head
from speckv.export.pairing import ML_OPSET, OPSET, width


def to_onnx(heads: Mapping[str, Any]) -> onnx.ModelProto:
    """The graph (see ``graph.assemble``) of fitted estimators by head, each alone or in a pipeline after a scaler.

    A regressor's answer is clipped to 0 … 1, a classifier's is the probability of class 1. Raises SpecKVError for
    what is neither a network with one hidden ReLU layer, a linear model nor a forest.
    """
    return assemble({name: to_head(name, estimator) for name, estimator in heads.items()})


def to_head(name: str, estimator: Any) -> Head:
    """What skl2onnx makes of ``estimator``, reduced to its numbers."""
    classifier = hasattr(estimator, "predict_proba")
    try:
        model = convert_sklearn(
            estimator,
            initial_types=[("rows", FloatTensorType([None, width(name)]))],
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            options={id(estimator): {"zipmap": False}} if classifier else None,
        )
        constants = {
            tensor.name: numpy_helper.to_array(tensor).astype(np.float32)
            for tensor in model.graph.initializer
            if tensor.data_type == onnx.TensorProto.FLOAT
        }
        head = read_head(model.graph.node, constants)
    except (ValueError, KeyError, RuntimeError) as error:  # skl2onnx's own derive from RuntimeError
        raise SpecKVError(f"head {name}: {type(estimator).__name__} cannot be exported ({error})") from None
    if why := head.problem(width(name)):
        raise SpecKVError(f"head {name}: {type(estimator).__name__} cannot be exported, since {why}")
    return head

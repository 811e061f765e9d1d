"""Turn fitted scikit-learn heads into one ONNX graph that answers for a batch and several γ in one call."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, compose, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType

from speckv.controller.features import FEATURES
from speckv.export.pairing import IR_VERSION, ML_OPSET, OPSET, ROWS, SHAPE, pairing_graph


def to_onnx(heads: dict[str, Any]) -> onnx.ModelProto:
    """One model with inputs ``signals`` (N, 5) and ``gammas`` (K,) and an output (N, K) per head, all float32.

    ``signals`` are the features but γ; every row is paired with every γ inside the graph. A regressor's output is
    clipped to 0 … 1, a classifier's is the probability of class 1.
    """
    pairing = pairing_graph()
    nodes = list(pairing.node)
    constants = list(pairing.initializer)
    for name, estimator in heads.items():
        head = compose.add_prefix(_head(estimator), f"{name}/").graph
        nodes += [
            helper.make_node("Identity", [ROWS], [f"{name}/{ROWS}"]),
            *head.node,
            helper.make_node("Reshape", [f"{name}/flat", SHAPE], [name]),
        ]
        constants += head.initializer
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "K"]) for name in heads]
    graph = helper.make_graph(nodes, "speckv", list(pairing.input), outputs, constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="speckv")
    onnx.checker.check_model(model, full_check=True)
    return model


def _head(estimator: Any) -> onnx.ModelProto:
    """The estimator's own graph from ``rows`` (R, 6) to ``flat`` (R, 1)."""
    classifier = hasattr(estimator, "predict_proba")
    options = {id(estimator): {"zipmap": False}} if classifier else None
    model = convert_sklearn(
        estimator,
        initial_types=[(ROWS, FloatTensorType([None, len(FEATURES)]))],
        target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
        options=options,
    )
    if classifier:
        model = onnx.utils.Extractor(model).extract_model([ROWS], ["probabilities"])
        model.graph.initializer.append(helper.make_tensor("class_1", TensorProto.INT64, [1], [1]))
        last = helper.make_node("Gather", ["probabilities", "class_1"], ["flat"], axis=1)
    else:
        model.graph.initializer.append(helper.make_tensor("low", TensorProto.FLOAT, [], [0.0]))
        model.graph.initializer.append(helper.make_tensor("high", TensorProto.FLOAT, [], [1.0]))
        last = helper.make_node("Clip", [model.graph.output[0].name, "low", "high"], ["flat"])
    model.graph.node.append(last)
    return model

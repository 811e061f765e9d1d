"""Turn fitted scikit-learn heads into one ONNX graph that answers for a batch and several γ in one call."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, compose, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType

from speckv.controller.features import FEATURES

OPSET = 18
ML_OPSET = 3
IR_VERSION = 10
ROWS = "rows"


def to_onnx(heads: dict[str, Any]) -> onnx.ModelProto:
    """One model with inputs ``signals`` (N, 5) and ``gammas`` (K,) and an output (N, K) per head, all float32.

    ``signals`` are the features but γ; every row is paired with every γ inside the graph. A regressor's output is
    clipped to 0 … 1, a classifier's is the probability of class 1.
    """
    pairing = _pairing()
    nodes = list(pairing.node)
    constants = list(pairing.initializer)
    for name, estimator in heads.items():
        head = compose.add_prefix(_head(estimator), f"{name}/").graph
        nodes += [
            helper.make_node("Identity", [ROWS], [f"{name}/{ROWS}"]),
            *head.node,
            helper.make_node("Reshape", [f"{name}/flat", "shape"], [name]),
        ]
        constants += head.initializer
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "K"]) for name in heads]
    graph = helper.make_graph(nodes, "speckv", list(pairing.input), outputs, constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="speckv")
    onnx.checker.check_model(model, full_check=True)
    return model


def _pairing() -> onnx.GraphProto:
    """(N, 5) signals × (K,) γ → (N·K, 6) feature rows, and the shape (N, K) to fold an answer back to."""
    signals = len(FEATURES) - 1
    nodes = [
        helper.make_node("Shape", ["signals"], ["n"], start=0, end=1),
        helper.make_node("Shape", ["gammas"], ["k"]),
        helper.make_node("Concat", ["n", "k"], ["shape"], axis=0),
        helper.make_node("Concat", ["shape", "signal_count"], ["wide"], axis=0),
        helper.make_node("Concat", ["shape", "one"], ["narrow"], axis=0),
        helper.make_node("Unsqueeze", ["signals", "one"], ["signals_3d"]),
        helper.make_node("Expand", ["signals_3d", "wide"], ["signals_paired"]),
        helper.make_node("Unsqueeze", ["gammas", "one"], ["gammas_2d"]),
        helper.make_node("Expand", ["gammas_2d", "narrow"], ["gammas_paired"]),
        helper.make_node("Concat", ["signals_paired", "gammas_paired"], ["features"], axis=2),
        helper.make_node("Reshape", ["features", "row_shape"], [ROWS]),
    ]
    integers = {"signal_count": [signals], "one": [1], "row_shape": [-1, len(FEATURES)]}
    return helper.make_graph(
        nodes,
        "pairing",
        [
            helper.make_tensor_value_info("signals", TensorProto.FLOAT, ["N", signals]),
            helper.make_tensor_value_info("gammas", TensorProto.FLOAT, ["K"]),
        ],
        [
            helper.make_tensor_value_info(ROWS, TensorProto.FLOAT, ["R", len(FEATURES)]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in integers.items()],
    )


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

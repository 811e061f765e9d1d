"""The fixed front of every controller graph: it pairs each row of signals with each γ."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from speckv.controller.features import FEATURES

OPSET = 18
ML_OPSET = 3
IR_VERSION = 10
SIGNALS, GAMMAS, ROWS, SHAPE = "signals", "gammas", "rows", "shape"
LARGEST = 1e6
"""Features are clipped to ±LARGEST, and no number of a head is beyond it: so no float32 sum can overflow."""


def pairing_graph() -> onnx.GraphProto:
    """(N, 5) signals × (K,) γ → (N·K, 6) feature rows, and the shape (N, K) to fold an answer back to."""
    signals = len(FEATURES) - 1
    nodes = [
        helper.make_node("Shape", [SIGNALS], ["n"], start=0, end=1),
        helper.make_node("Shape", [GAMMAS], ["k"]),
        helper.make_node("Concat", ["n", "k"], [SHAPE], axis=0),
        helper.make_node("Concat", [SHAPE, "signal_count"], ["wide"], axis=0),
        helper.make_node("Concat", [SHAPE, "one"], ["narrow"], axis=0),
        helper.make_node("Unsqueeze", [SIGNALS, "one"], ["signals_3d"]),
        helper.make_node("Expand", ["signals_3d", "wide"], ["signals_paired"]),
        helper.make_node("Unsqueeze", [GAMMAS, "one"], ["gammas_2d"]),
        helper.make_node("Expand", ["gammas_2d", "narrow"], ["gammas_paired"]),
        helper.make_node("Concat", ["signals_paired", "gammas_paired"], ["paired"], axis=2),
        helper.make_node("Clip", ["paired", "smallest", "largest"], ["features"]),
        helper.make_node("Reshape", ["features", "row_shape"], [ROWS]),
    ]
    integers = {"signal_count": [signals], "one": [1], "row_shape": [-1, len(FEATURES)]}
    bounds = {"smallest": -LARGEST, "largest": LARGEST}
    return helper.make_graph(
        nodes,
        "pairing",
        [
            helper.make_tensor_value_info(SIGNALS, TensorProto.FLOAT, ["N", signals]),
            helper.make_tensor_value_info(GAMMAS, TensorProto.FLOAT, ["K"]),
        ],
        [
            helper.make_tensor_value_info(ROWS, TensorProto.FLOAT, ["R", len(FEATURES)]),
            helper.make_tensor_value_info(SHAPE, TensorProto.INT64, [2]),
        ],
        [
            *(helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in integers.items()),
            *(helper.make_tensor(name, TensorProto.FLOAT, [], [v]) for name, v in bounds.items()),
        ],
    )

"""The fixed front of every head's graph: it pairs each row of signals with each value of the last feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from speckv.controller.features import FEATURES, SURVIVAL_FEATURES

OPSET = 18
ML_OPSET = 3
IR_VERSION = 10
HEADS = {
    "acceptance_rate": ("signals", "gammas", FEATURES),
    "survival": ("prefixes", "further", SURVIVAL_FEATURES),
}
"""By head its two inputs, (N, M) and (K,), and its M + 1 features, of which the second input is the last."""
LARGEST = 1e6
"""Features are clipped to ±LARGEST, and no number of a head is beyond it: so no float32 sum can overflow."""


def width(head: str) -> int:
    """How many features a head takes, M + 1."""
    return len(HEADS[head][2])


def pair(graph: onnx.GraphProto, head: str, values: Sequence[float] | None = None) -> tuple[str, str]:
    """Append to ``graph`` a head's inputs, and the nodes and constants (all called ``head/…``) that pair them.

    With ``values`` these are the last feature's, and only the signals are an input. Returns the names of the feature
    rows (N·K, M + 1), and of the shape (N, K) to fold an answer back to.
    """
    signals, last, features = HEADS[head]
    inputs: dict[str, list[str | int]] = {signals: ["N", len(features) - 1]}
    if values is None:
        inputs[last] = ["K"]
    else:
        graph.initializer.append(helper.make_tensor(f"{head}/{last}", TensorProto.FLOAT, [len(values)], values))

    def name(word: str) -> str:
        return word if word in inputs else f"{head}/{word}"

    def add(operator: str, words: str, output: str, **attributes: Any) -> None:
        node = helper.make_node(operator, [name(word) for word in words.split()], [name(output)], **attributes)
        graph.node.append(node)

    add("Shape", signals, "n", start=0, end=1)
    add("Shape", last, "k")
    add("Concat", "n k", "shape", axis=0)
    add("Concat", "shape signal_count", "wide", axis=0)
    add("Concat", "shape one", "narrow", axis=0)
    add("Unsqueeze", f"{signals} one", "signals_3d")
    add("Expand", "signals_3d wide", "signals_paired")
    add("Unsqueeze", f"{last} one", "last_2d")
    add("Expand", "last_2d narrow", "last_paired")
    add("Concat", "signals_paired last_paired", "paired", axis=2)
    add("Clip", "paired smallest largest", "features")
    add("Reshape", "features row_shape", "rows")
    integers = {"signal_count": [len(features) - 1], "one": [1], "row_shape": [-1, len(features)]}
    graph.input.extend(helper.make_tensor_value_info(key, TensorProto.FLOAT, dims) for key, dims in inputs.items())
    graph.initializer.extend(helper.make_tensor(name(w), TensorProto.INT64, [len(v)], v) for w, v in integers.items())
    _bounds(graph, head)
    return name("rows"), name("shape")


def alone(graph: onnx.GraphProto, head: str) -> tuple[str, None]:
    """Append to ``graph`` the signals alone, clipped; returns their name, and no shape since nothing is paired."""
    signals, _, features = HEADS[head]
    graph.input.append(helper.make_tensor_value_info(signals, TensorProto.FLOAT, ["N", len(features) - 1]))
    clipped = f"{head}/features"
    graph.node.append(helper.make_node("Clip", [signals, f"{head}/smallest", f"{head}/largest"], [clipped]))
    _bounds(graph, head)
    return clipped, None


def _bounds(graph: onnx.GraphProto, head: str) -> None:
    for word, value in (("smallest", -LARGEST), ("largest", LARGEST)):
        graph.initializer.append(helper.make_tensor(f"{head}/{word}", TensorProto.FLOAT, [], [value]))

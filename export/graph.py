"""From heads to the one graph that has them, and from such a graph back to its heads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from speckv.export.chain import ML, Chain
from speckv.export.heads import Array, Head, read_head
from speckv.export.pairing import IR_VERSION, ML_OPSET, OPSET, alone, pair

METADATA_KEY = "speckv"


def assemble(heads: Mapping[str, Head], metadata: str | None = None) -> onnx.ModelProto:
    """One model with two inputs (N, M) and (K,) and an output (N, K) per head (``pairing.HEADS``), all float32.

    The first has the features but the last, the second values of that one; all are paired inside the graph.
    """
    model = _empty()
    for name, head in heads.items():
        head.extend(Chain(model.graph, name, pair(model.graph, name)))
    if metadata is not None:
        model.metadata_props.add(key=METADATA_KEY, value=metadata)
    return model


def answering(name: str, head: Head, last: Sequence[float]) -> onnx.ModelProto:
    """The model that is run: the head ``name`` for these values of the last feature, from (N, M) to (N, K).

    It says what the one of :func:`assemble` says, to float32's precision, in a third of the time where the estimator is
    a network: nothing is paired, and two products of matrices are left.
    """
    model = _empty()
    network = head.answering(last)
    if network:
        Head(network).extend(Chain(model.graph, name, alone(model.graph, name)))
    else:
        head.extend(Chain(model.graph, name, pair(model.graph, name, last)))
    return model


def _empty() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)]
    graph = helper.make_graph([], "speckv", [], [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="speckv")


def serialized(model: onnx.ModelProto) -> bytes:
    """``model`` as bytes, the same for the same model."""
    return bytes(model.SerializeToString(deterministic=True))


def take_apart(model: onnx.ModelProto) -> dict[str, Head]:
    """The heads of a graph that :func:`assemble` made, by name; ValueError or KeyError where it cannot have made it."""
    graph = model.graph
    constants = {tensor.name: _constant(tensor) for tensor in graph.initializer if tensor.raw_data}
    heads = {}
    for name in (value.name for value in graph.output):
        nodes = [node for node in graph.node if node.output and node.output[0].startswith(f"{name}/")]
        heads[name] = read_head(nodes, constants)
    return heads


def _constant(tensor: onnx.TensorProto) -> Array:
    """A head's constant. Not ``numpy_helper.to_array``, which would open a file if the tensor names one."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ValueError("a constant lies in another file")
    if tensor.data_type != TensorProto.FLOAT:
        raise ValueError("a constant is not float32")
    if min(tensor.dims, default=1) < 0 or 4 * math.prod(tensor.dims) != len(tensor.raw_data):
        raise ValueError(f"a constant of {len(tensor.raw_data)} bytes has the shape {list(tensor.dims)[:6]}")
    return np.frombuffer(tensor.raw_data, dtype="<f4").reshape(tensor.dims)

"""Whether an ONNX graph is one that this project could have written; anything else is refused unexecuted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from speckv.controller.errors import SpecKVError
from speckv.export.pairing import GAMMAS, IR_VERSION, ML_OPSET, OPSET, SIGNALS, pairing_graph

HEAD_OPERATORS = frozenset(
    {
        ("", name)
        for name in (
            "Add",
            "Cast",
            "Clip",
            "Concat",
            "Gather",
            "Identity",
            "MatMul",
            "Relu",
            "Reshape",
            "Sigmoid",
            "Sub",
        )
    }
    | {("ai.onnx.ml", name) for name in ("LinearRegressor", "Scaler", "TreeEnsembleRegressor")}
)
MAX_NODES = 200
MAX_ELEMENTS = 4 << 20
MAX_INTEGER = 4096
"""Integers in a head are shapes and indices; no honest one is near this."""


def refuse_unless_ours(model: onnx.ModelProto, heads: Sequence[str], source: str) -> None:
    """Raise SpecKVError unless ``model`` is the fixed pairing followed by heads of plain, bounded operators."""
    if why := _problem(model, heads):
        raise SpecKVError(f"{source}: refused, since {why}; only artefacts written by `speckv train` are run")


def _problem(model: onnx.ModelProto, heads: Sequence[str]) -> str | None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if model.ir_version != IR_VERSION or opsets != {"": OPSET, "ai.onnx.ml": ML_OPSET}:
        return f"its ONNX versions are not IR {IR_VERSION}, opset {OPSET} and ai.onnx.ml {ML_OPSET}"
    if model.functions or model.training_info or model.graph.sparse_initializer:
        return "it has functions, training steps or sparse weights"
    if len(model.graph.node) > MAX_NODES:
        return f"it has {len(model.graph.node)} nodes, more than {MAX_NODES}"
    return _tensors(model.graph) or _nodes(model.graph) or _interface(model.graph, heads) or _valid(model)


def _tensors(graph: onnx.GraphProto) -> str | None:
    names: set[str] = set()
    for tensor in graph.initializer:
        if tensor.name in names:
            return f"two constants are called {tensor.name[:40]}"
        names.add(tensor.name)
        if why := _tensor(tensor):
            return f"constant {tensor.name[:40]} {why}"
    return None


def _tensor(tensor: onnx.TensorProto) -> str | None:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        return "lies in another file"
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.INT64):
        return "is neither float32 nor int64"
    if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > MAX_ELEMENTS:
        return f"has the shape {list(tensor.dims)[:6]}"
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        return f"is damaged ({str(error)[:60]})"
    if tensor.data_type == TensorProto.FLOAT:
        return None if np.isfinite(values).all() else "has NaN or infinite values"
    return None if np.abs(values).max(initial=0) <= MAX_INTEGER else "has integers too large for a shape"


def _nodes(graph: onnx.GraphProto) -> str | None:
    front = pairing_graph()
    expected = [node.SerializeToString(deterministic=True) for node in front.node]
    found = [node.SerializeToString(deterministic=True) for node in graph.node[: len(expected)]]
    if found != expected:
        return "it does not begin with the pairing of signals and gammas"
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for tensor in front.initializer:
        if tensor.name not in constants or numpy_helper.to_array(constants[tensor.name]).tolist() != list(
            numpy_helper.to_array(tensor)
        ):
            return f"the pairing's constant {tensor.name} is another"
    for node in graph.node[len(expected) :]:
        if (node.domain, node.op_type) not in HEAD_OPERATORS:
            return f"operator {node.domain[:40]}:{node.op_type[:40]} is none that a controller needs"
        for attribute in node.attribute:
            if attribute.g.node or attribute.graphs or attribute.HasField("t") or attribute.tensors:
                return f"a node {node.op_type} carries a graph or a tensor"
            if not np.isfinite(attribute.floats).all() or not math.isfinite(attribute.f):
                return f"a node {node.op_type} has NaN or infinite values"
        if node.op_type == "TreeEnsembleRegressor" and (why := _trees(node)):
            return why
    return None


def _trees(node: onnx.NodeProto) -> str | None:
    """Children must come after their parent, or evaluating a tree might never end."""
    values = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    identifiers = values.get("nodes_nodeids", [])
    for branch in ("nodes_truenodeids", "nodes_falsenodeids"):
        children = values.get(branch, [])
        if len(children) != len(identifiers):
            return "a tree's tables have different lengths"
        modes = next((list(a.strings) for a in node.attribute if a.name == "nodes_modes"), [])
        if len(modes) != len(identifiers):
            return "a tree's tables have different lengths"
        for identifier, child, mode in zip(identifiers, children, modes, strict=True):
            if mode != b"LEAF" and child <= identifier:
                return "a tree has a cycle"
    return None


def _interface(graph: onnx.GraphProto, heads: Sequence[str]) -> str | None:
    front = pairing_graph()
    inputs = [value.SerializeToString(deterministic=True) for value in graph.input]
    if inputs != [value.SerializeToString(deterministic=True) for value in front.input]:
        return f"its inputs are not {SIGNALS} and {GAMMAS}"
    if [value.name for value in graph.output] != list(heads):
        return f"its outputs are not its heads {', '.join(heads)}"
    return None


def _valid(model: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker raises several types, none of them a contract
        return f"it is not valid ONNX ({str(error).strip().splitlines()[0][:80]})"
    return None

"""Whether an ONNX file is one that this project could have written; nothing of another file is ever run.

The numbers of its heads are read out and checked, and the graph is made anew from them: a file is ours if it is that
graph. So there is no list of forbidden things, and a runtime sees only graphs that were built here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import onnx

from speckv.controller.errors import SpecKVError
from speckv.export import outline
from speckv.export.files import brief
from speckv.export.graph import assemble, serialized, take_apart
from speckv.export.heads import Head
from speckv.export.pairing import width


def parse_model(content: bytes, source: str) -> onnx.ModelProto:
    """``content`` as a model of bounded size; raises SpecKVError if it is none."""
    if why := outline.problem(content):
        raise SpecKVError(f"{source}: refused, since {why}; `speckv train` makes a controller")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception:  # protobuf's DecodeError is not exported where its versions agree
        raise SpecKVError(f"{source}: no ONNX file, or a damaged one; `speckv train` makes a controller") from None
    return model


def read_heads(model: onnx.ModelProto, names: Sequence[str], metadata: str, source: str) -> dict[str, Head]:
    """The heads ``names`` of ``model``; raises SpecKVError unless it is the graph that they make."""
    try:
        heads = take_apart(model)
        if list(heads) != list(names):
            raise ValueError(f"its outputs are not {', '.join(names)}")
        checked = ((name, head.problem(width(name))) for name, head in heads.items())
        why = next((f"in head {name}, {problem}" for name, problem in checked if problem), None)
    except KeyError as error:
        why = f"{brief(error)} is missing"
    except (ValueError, IndexError, TypeError) as error:  # TypeError: a name that is not UTF-8 comes as bytes
        why = f"it has no heads that can be read ({brief(error)})"
    if not why:
        expected = assemble(heads, metadata)
        why = None if serialized(model) == serialized(expected) else _difference(model, expected)
    if why:
        raise SpecKVError(f"{source}: refused, since {why}; only controllers as `speckv train` writes them are run")
    return heads


def _difference(found: onnx.ModelProto, expected: onnx.ModelProto) -> str:
    """What of ``found`` is other than it should be."""
    for number, (node, wanted) in enumerate(zip_longest(found.graph.node, expected.graph.node)):
        if node != wanted:
            what = f"{brief(node.domain, 20)}:{brief(node.op_type, 40)}" if node else "missing"
            return f"node {number} ({what}) is not as a controller's"
    for part, wanted in ((found.graph, expected.graph), (found, expected)):
        for field in part.DESCRIPTOR.fields:
            if field.name != "graph" and getattr(part, field.name) != getattr(wanted, field.name):
                return f"its {field.name.replace('_', ' ')} is not as a controller's"
    return "it holds something that no controller has"

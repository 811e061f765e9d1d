"""A head's part of the graph: nodes in a row, each fed by the one before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"


class Chain:
    """Appends to ``graph`` the head ``name``: from ``front``, where feature rows begin, to the answer (N, K).

    ``front`` is what ``pairing.pair`` returns, or ``pairing.alone``.
    """

    def __init__(self, graph: onnx.GraphProto, name: str, front: tuple[str, str | None]) -> None:
        self.graph = graph
        self.name = name
        self._last, self._shape = front
        self._nodes = self._constants = 0

    def add(self, operator: str, *constants: Any, domain: str = "", **attributes: Any) -> None:
        """Append a node that takes the last one's output and float32 ``constants``.

        An array is written as the table of that name: float32, integers or byte strings.
        """
        inputs = [self._last]
        for values in constants:
            inputs.append(f"{self.name}/constant{self._constants}")
            self._constants += 1
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype=np.float32), inputs[-1]))
        self._last = f"{self.name}/{operator}{self._nodes}"
        self._nodes += 1
        tables = {key: value for key, value in attributes.items() if isinstance(value, np.ndarray)}
        others = {key: value for key, value in attributes.items() if key not in tables}
        self.graph.node.append(helper.make_node(operator, inputs, [self._last], domain=domain or None, **others))
        for key in sorted(tables):  # in the graph's own node, since a copy of a forest takes long
            _fill(self.graph.node[-1].attribute.add(name=key), tables[key])

    def finish(self) -> None:
        """Fold the answers back to (N, K) if they are not, and make them an output."""
        folded = ("Reshape", [self._last, self._shape]) if self._shape else ("Identity", [self._last])
        self.graph.node.append(helper.make_node(*folded, [self.name]))
        self.graph.output.append(helper.make_tensor_value_info(self.name, TensorProto.FLOAT, ["N", "K"]))


def _fill(attribute: onnx.AttributeProto, values: NDArray[Any]) -> None:
    """As ``helper.make_attribute``, which looks at every number of a forest several times."""
    kind, field = {"f": ("FLOATS", "floats"), "i": ("INTS", "ints"), "S": ("STRINGS", "strings")}[values.dtype.kind]
    attribute.type = AttributeProto.AttributeType.Value(kind)
    getattr(attribute, field).extend(values.tolist())

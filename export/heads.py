"""The kinds of head a controller may have: their numbers, what these must satisfy, and the nodes they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from speckv.export.chain import ML, Chain
from speckv.export.forest import Forest
from speckv.export.pairing import LARGEST

Array = NDArray[np.float32]
MAX_HIDDEN = 1024


class Estimator(Protocol):
    """What turns feature rows (R, F) into answers (R, 1)."""

    def problem(self, inputs: int) -> str | None:
        """Why its numbers cannot be used for F = ``inputs`` features, or None."""

    def extend(self, chain: Chain) -> None:
        """Append its nodes; the last one's output is a probability."""


@dataclass(frozen=True, eq=False)
class Network:
    """relu(x · w1 + b1) · w2 + b2, clipped to a probability, or its logit if ``logistic``.

    Shapes, as in the paper's published weights: ``w1`` (F, H), ``b1`` (H,), ``w2`` (H, 1), ``b2`` (1,).
    """

    w1: Array
    b1: Array
    w2: Array
    b2: Array
    logistic: bool = False

    def problem(self, inputs: int) -> str | None:
        hidden = len(self.b1)
        found = [values.shape for values in (self.w1, self.b1, self.w2, self.b2)]
        if not 1 <= hidden <= MAX_HIDDEN or found != [(inputs, hidden), (hidden,), (hidden, 1), (1,)]:
            return f"its weights have the shapes {', '.join(map(str, found))}"
        return _unbounded(self.w1, self.b1, self.w2, self.b2)

    def extend(self, chain: Chain) -> None:
        chain.add("MatMul", self.w1)
        chain.add("Add", self.b1)
        chain.add("Relu")
        chain.add("MatMul", self.w2)
        chain.add("Add", self.b2)
        if self.logistic:
            chain.add("Sigmoid")
        else:
            chain.add("Clip", 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Line:
    """x · ``coefficients`` (F,) + ``intercept`` (1,), clipped to a probability."""

    coefficients: Array
    intercept: Array

    def problem(self, inputs: int) -> str | None:
        if self.coefficients.shape != (inputs,) or self.intercept.shape != (1,):
            return f"it has {len(self.coefficients)} coefficients and {len(self.intercept)} intercepts"
        return _unbounded(self.coefficients, self.intercept)

    def extend(self, chain: Chain) -> None:
        chain.add("LinearRegressor", domain=ML, coefficients=self.coefficients, intercepts=self.intercept)
        chain.add("Clip", 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Scaling:
    """(x − ``offset``) · ``scale``, both (F,), before an estimator."""

    offset: Array
    scale: Array

    def problem(self, inputs: int) -> str | None:
        if self.offset.shape != (inputs,) or self.scale.shape != (inputs,):
            return f"it scales {len(self.offset)} features, not {inputs}"
        return _unbounded(self.offset, self.scale)


@dataclass(frozen=True, eq=False)
class Head:
    """An estimator and the scaling before it, if any."""

    estimator: Estimator
    scaling: Scaling | None = None

    def problem(self, inputs: int) -> str | None:
        """Why its numbers cannot be used for ``inputs`` features, or None."""
        return (self.scaling.problem(inputs) if self.scaling else None) or self.estimator.problem(inputs)

    def answering(self, last: Sequence[float]) -> Network | None:
        """A network (M features, K·H hidden units, K answers) that says the same for K values of the last feature.

        Its first layer is linear in that one, which so becomes part of the biases, as the scaling does of the weights.
        None where the estimator is no network.
        """
        network = self.estimator
        if not isinstance(network, Network):
            return None
        w1, b1 = network.w1.astype(np.float64), network.b1.astype(np.float64)
        if self.scaling:
            w1 = self.scaling.scale[:, None] * w1
            b1 = b1 - self.scaling.offset.astype(np.float64) @ w1
        values = np.clip(np.asarray(last, dtype=np.float64), -LARGEST, LARGEST)
        return Network(
            np.tile(w1[:-1], len(values)).astype(np.float32),
            (b1 + np.outer(values, w1[-1])).ravel().astype(np.float32),
            np.kron(np.eye(len(values)), network.w2).astype(np.float32),
            np.repeat(network.b2, len(values)),
            network.logistic,
        )

    def extend(self, chain: Chain) -> None:
        """Append all of it to ``chain``."""
        if self.scaling:
            chain.add("Scaler", domain=ML, offset=self.scaling.offset, scale=self.scaling.scale)
        self.estimator.extend(chain)
        chain.finish()


def read_head(nodes: Iterable[onnx.NodeProto], constants: Mapping[str, Array]) -> Head:
    """The numbers of a head's graph, skl2onnx's or ours; ValueError or KeyError where it is of no known kind.

    It looks for numbers only. That nothing else is in the graph is for the caller to see: an export by its parity,
    a file by being equal to the graph that these numbers make.
    """
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        found.setdefault(node.op_type, []).append(node)
    scaling = None
    if "Scaler" in found:
        scaler = _attributes(found["Scaler"][0])
        scaling = Scaling(_floats(scaler["offset"]), _floats(scaler["scale"]))
    if "TreeEnsembleRegressor" in found:
        return Head(Forest.read(_attributes(found["TreeEnsembleRegressor"][0])), scaling)
    if "LinearRegressor" in found:
        line = _attributes(found["LinearRegressor"][0])
        return Head(Line(_floats(line["coefficients"]), _floats(line["intercepts"])), scaling)
    weights = [constants[node.input[1]] for node in found.get("MatMul", [])]
    biases = [constants[node.input[1]].ravel() for node in found.get("Add", [])]
    if len(weights) != 2 or len(biases) != 2:
        raise ValueError("no network of one hidden layer, no linear model and no forest")
    return Head(Network(weights[0], biases[0], weights[1], biases[1], "Sigmoid" in found), scaling)


def _unbounded(*arrays: Array) -> str | None:
    if all((np.abs(values) <= LARGEST).all() for values in arrays):
        return None
    return f"one of its numbers is not finite or beyond {LARGEST:.0e}"


def _attributes(node: onnx.NodeProto) -> dict[str, onnx.AttributeProto]:
    return {attribute.name: attribute for attribute in node.attribute}


def _floats(attribute: onnx.AttributeProto) -> Array:
    return np.fromiter(attribute.floats, np.float32)

"""A forest of regression trees as flat tables, and the proof that they are trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from speckv.export.chain import ML, Chain
from speckv.export.pairing import LARGEST

MAX_DEPTH = 256
"""Runtimes walk into a tree recursively when they load it; a chain of nodes must not exhaust their stack."""


@dataclass(frozen=True, eq=False)
class Forest:
    """The sum of T trees with n nodes and m leaves in all, node by node, one tree after the other.

    ``sizes`` (T,): nodes per tree. ``features``, ``thresholds`` (n,): a branch goes to ``below`` where the feature is
    at most the threshold, else to ``above``, which count from the tree's root, its node 0; both are 0 in a leaf.
    ``values`` (m,): what each leaf adds.

    scikit-learn compares a float32 feature with a float64 threshold. skl2onnx rounds that threshold down to float32,
    which decides alike for every float32 feature, those that equal the threshold included.
    """

    sizes: NDArray[np.int64]
    features: NDArray[np.int64]
    thresholds: NDArray[np.float32]
    below: NDArray[np.int64]
    above: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def read(cls, attributes: Mapping[str, onnx.AttributeProto]) -> Forest:
        """The tables of a TreeEnsembleRegressor; ValueError or KeyError where they cannot be those of a forest."""
        count = len(attributes["nodes_treeids"].ints)
        trees = _integers(attributes["nodes_treeids"], count)
        if not count or trees.min() < 0 or trees.max() >= count:
            raise ValueError("its trees are not numbered from 0")
        return cls(
            sizes=np.bincount(trees),
            features=_integers(attributes["nodes_featureids"], count),
            thresholds=np.fromiter(attributes["nodes_values"].floats, np.float32),
            below=_integers(attributes["nodes_truenodeids"], count),
            above=_integers(attributes["nodes_falsenodeids"], count),
            values=np.fromiter(attributes["target_weights"].floats, np.float32),
        )

    def problem(self, inputs: int) -> str | None:
        """Why these tables are no forest over so many features, or None."""
        count = len(self.features)
        leaves = self._leaves
        if len(self.thresholds) != count or len(self.values) != np.count_nonzero(leaves):
            return "the tables of its forest have different lengths"
        if not self.sizes.all():
            return "a tree of its forest has no nodes"
        if not ((self.features >= 0) & (self.features < inputs)).all():
            return "a tree asks for a feature that there is not"
        numbers = np.concatenate((self.thresholds, self.values))
        if not (np.abs(numbers) <= LARGEST).all():
            return f"a tree has a number that is not finite or beyond {LARGEST:.0e}"
        return None if self._reaches_each_once() else f"its trees are not trees of at most {MAX_DEPTH} levels"

    def extend(self, chain: Chain) -> None:
        """Append the forest, clipped to a probability."""
        leaves = self._leaves
        trees = np.repeat(np.arange(len(self.sizes)), self.sizes)
        nodes = np.arange(len(trees)) - self._roots[trees]
        chain.add(
            "TreeEnsembleRegressor",
            domain=ML,
            n_targets=1,
            nodes_treeids=trees,
            nodes_nodeids=nodes,
            nodes_modes=np.where(leaves, b"LEAF", b"BRANCH_LEQ"),
            nodes_featureids=self.features,
            nodes_values=self.thresholds,
            nodes_truenodeids=self.below,
            nodes_falsenodeids=self.above,
            target_treeids=trees[leaves],
            target_nodeids=nodes[leaves],
            target_ids=np.zeros_like(trees[leaves]),
            target_weights=self.values,
        )
        chain.add("Clip", 0.0, 1.0)

    @property
    def _roots(self) -> NDArray[np.int64]:
        return np.cumsum(self.sizes) - self.sizes

    @property
    def _leaves(self) -> NDArray[np.bool_]:
        leaves: NDArray[np.bool_] = (self.below == 0) & (self.above == 0)
        return leaves

    def _reaches_each_once(self) -> bool:
        """Walk all trees level by level: each node is reached exactly once, within MAX_DEPTH levels."""
        starts = np.repeat(self._roots, self.sizes)
        ends = starts + np.repeat(self.sizes, self.sizes)
        branches = ~self._leaves
        reached = np.zeros(len(starts), dtype=np.int64)
        level = self._roots
        for _ in range(MAX_DEPTH):
            np.add.at(reached, level, 1)
            parents = level[branches[level]]
            if not len(parents) or reached.max() > 1:
                break
            level = np.concatenate((starts[parents] + self.below[parents], starts[parents] + self.above[parents]))
            limits = np.tile(ends[parents], 2)
            if not ((level >= np.tile(starts[parents], 2)) & (level < limits)).all():
                return False
        return bool((reached == 1).all())


def _integers(attribute: onnx.AttributeProto, count: int) -> NDArray[np.int64]:
    if len(attribute.ints) != count:
        raise ValueError("the tables of its forest have different lengths")
    return np.fromiter(attribute.ints, np.int64, count)

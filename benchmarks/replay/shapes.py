"""Policies whose trees depend on nothing but the position: replayed by looking up, all positions at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from speckv.benchmarks.baselines.p_min import N_MAX, P_MIN
from speckv.benchmarks.baselines.svip import LONGEST, SCALE, THRESHOLD
from speckv.benchmarks.replay.engine import Played
from speckv.benchmarks.replay.positions import Ints, Positions, Served
from speckv.benchmarks.replay.regimes import Regime
from speckv.controller.policy import SIBLINGS


@dataclass(frozen=True, eq=False)
class Shape:
    """By position, (P,): levels drafted and verified, positions verified beyond the target's own, tokens emitted."""

    gammas: Ints
    verified: Ints
    emitted: Ints


Maker = Callable[[Positions], Shape]


def chain(positions: Positions, gammas: Ints) -> Shape:
    """Spines of ``gammas`` (P,) tokens alone."""
    return _shape(positions, gammas, np.zeros((len(gammas), positions.depth), dtype=np.int64))


def fixed(gamma: int, siblings: int = 0) -> Maker:
    """Always γ levels with so many siblings at each; as far as one request may still go."""

    def make(positions: Positions) -> Shape:
        gammas = np.minimum(gamma, positions.room)
        return _shape(positions, gammas, np.full((len(gammas), positions.depth), siblings, dtype=np.int64))

    return make


def budget(nodes: int) -> Maker:
    """The ``nodes`` most probable of all spines and siblings, by the draft (as DySpec, arXiv 2410.11744, picks nodes).

    No level is drafted in vain, which no real loop could know: the peer is flattered by that.
    """

    def make(positions: Positions) -> Shape:
        best = positions.signals[:, :, 1:]
        reach = np.cumprod(best[:, :, 0], axis=1)
        before = np.concatenate((np.ones((len(reach), 1)), reach[:, :-1]), axis=1)
        values = np.concatenate((reach[:, :, None], before[:, :, None] * best[:, :, 1:]), axis=2)
        order = (-values.reshape(len(values), -1)).argsort(axis=1, kind="stable")[:, :nodes]
        chosen = np.zeros((len(values), positions.depth * (1 + SIBLINGS)), dtype=bool)
        np.put_along_axis(chosen, order, True, axis=1)
        by_level = chosen.reshape(len(values), positions.depth, -1)
        gammas = np.minimum(by_level[:, :, 0].sum(axis=1), positions.room)
        return _shape(positions, gammas, by_level[:, :, 1:].sum(axis=2))

    return make


def p_min(positions: Positions) -> Shape:
    """See :mod:`speckv.benchmarks.baselines.p_min`; each request of a batch stops by itself, as in llama.cpp."""
    return chain(positions, _until(positions.signals[:, :, 1] < P_MIN, N_MAX, positions))


def svip(positions: Positions) -> Shape:
    """See :mod:`speckv.benchmarks.baselines.svip`; every request of a batch stops by itself."""
    return chain(positions, _until(SCALE * positions.signals[:, :, 0] > THRESHOLD**2, LONGEST, positions))


FIXED = {f"fixed-{gamma}": fixed(gamma) for gamma in range(17)}
TREES = {f"tree-{gamma}-{count}": fixed(gamma, count) for gamma in range(1, 9) for count in range(1, SIBLINGS + 1)}
SHAPES: dict[str, Maker] = {"plain": fixed(0), **FIXED, **TREES}
SHAPES |= {f"budget-{nodes}": budget(nodes) for nodes in (8, 16, 32)} | {"p-min": p_min, "svip": svip}


def play_shape(shape: Shape, positions: Positions, regime: Regime, order: Sequence[int], batch: int) -> Played:
    """As ``engine.play``. A round drafts as many levels as its deepest request has."""
    played = Played()
    draft_ms, verify = regime.draft_ms(batch), regime.verify_table(batch)
    served = Served(positions, order, batch)
    while served.full:
        at = served.at
        levels, verified, emitted = int(shape.gammas[at].max()), int(shape.verified[at].sum()), shape.emitted[at]
        ms = draft_ms * levels + float(verify[batch + verified])
        played.add(served.sequences, emitted.tolist(), ms, int(shape.gammas[at].sum()), verified)
        served.advance(emitted)
    return played


def _shape(positions: Positions, gammas: Ints, siblings: Ints) -> Shape:
    """``siblings`` (P, depth) of each level, those with the best ranks."""
    at = np.arange(len(gammas))
    accepted, ranks = positions.accepted(at, gammas)
    beside = siblings[at, np.minimum(accepted, positions.depth - 1)]
    hits = (ranks > 0) & (ranks <= beside)
    counted = (siblings * (np.arange(positions.depth) < gammas[:, None])).sum(axis=1)
    emitted = np.minimum(accepted + 1 + hits, positions.end[at] - at)
    return Shape(gammas, gammas + counted, emitted)


def _until(stops: np.ndarray, most: int, positions: Positions) -> Ints:
    """Levels up to and with the first that ``stops`` (P, depth)."""
    first = np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, positions.depth)
    return np.minimum(np.minimum(first, most), np.minimum(positions.room, positions.lengths))

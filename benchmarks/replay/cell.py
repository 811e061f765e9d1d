"""One cell of the replay: all policies in one regime at one batch size, over several orders of the prompts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from speckv.benchmarks.baselines import make_peer
from speckv.benchmarks.replay.bounds import clairvoyant
from speckv.benchmarks.replay.engine import Played, play
from speckv.benchmarks.replay.noise import NoisyCosts
from speckv.benchmarks.replay.positions import Positions
from speckv.benchmarks.replay.regimes import Regime
from speckv.benchmarks.replay.shapes import FIXED, SHAPES, TREES, play_shape
from speckv.controller.features import compression_level
from speckv.controller.policies import make_policy
from speckv.integrations.runtime import Controller

OURS = {
    "speckv": ("token", True, False),
    "speckv-chain": ("token", False, False),
    "speckv-step": ("step", True, False),
    "speckv-step-chain": ("step", False, False),
    "speckv-noisy": ("token", True, True),
    "speckv-step-noisy": ("step", True, True),
}
"""Our policies' modes, whether they have siblings, and whether the times that they are told are noisy."""

ADAPTIVE = ("sglang-ema", "bandit", "paper")
SINGLE = ("hf-default", "hf-heuristic")
"""transformers' assisted generation takes one prompt."""

BOUNDS = {"clairvoyant": False, "clairvoyant-tree": True}
"""Of one request, since in a batch no path is shortest for all; and whether they have siblings."""


def orders_at(batch: int) -> int:
    """So many orders of the prompts."""
    return 12 if batch <= 4 else 3


def play_cell(
    regime: Regime, positions: Positions, batch: int, controller: str, ours: Collection[str] = tuple(OURS)
) -> dict[str, list[Played]]:
    """What every policy did in each order; of our own those that ``ours`` names."""
    orders = [positions.order(batch, seed) for seed in range(orders_at(batch))]
    # One request's round does not depend on the others'.
    own = orders[:1] if batch == 1 else orders
    shapes = {name: make(positions) for name, make in SHAPES.items()}
    played = {
        name: [play_shape(shape, positions, regime, order, batch) for order in own] for name, shape in shapes.items()
    }
    loaded, level = Controller.load(controller), compression_level(regime.compression)
    for name in (*ADAPTIVE, *(SINGLE if batch == 1 else ())):
        played[name] = [play(make_peer(name, loaded, level), positions, regime, order, batch) for order in orders]
    for name, (mode, siblings, noisy) in OURS.items():
        if name not in ours:
            continue
        played[name] = []
        for seed, order in enumerate(orders):
            cost = regime.cost_model(batch)
            cost = NoisyCosts(cost.costs, seed) if noisy else cost
            policy = make_policy(loaded, "throughput", mode, level, cost, siblings=siblings)
            played[name].append(play(policy, positions, regime, order, batch, exact=mode == "step"))
    if batch == 1:
        played |= {name: [clairvoyant(positions, regime, own[0], tree)] for name, tree in BOUNDS.items()}
    return played


def judge(played: Mapping[str, Sequence[Played]], tasks: Sequence[str], batch: int) -> list[dict[str, Any]]:
    """A row per policy; of one request per task too. Ratios are of tokens per second, order by order.

    ``vs_best_fixed`` is against the chain of the γ that is best over all orders, in hindsight, ``vs_best_tree``
    against the best ``tree-γ-K``; each is the mean over the orders, and ``…_min`` the least. ``verified``: drafted
    positions that were verified, per request and round; ``tau``: tokens per request and round.
    """
    found = []
    for task in ("all", *(dict.fromkeys(tasks) if batch == 1 else ())):
        rates = {name: np.array([_rate(one, tasks, task) for one in all_orders]) for name, all_orders in played.items()}
        best_fixed = max(FIXED, key=lambda name: rates[name].mean())
        best_tree = max(TREES, key=lambda name: rates[name].mean())
        bars = {"vs_best_fixed": best_fixed, "vs_best_tree": best_tree, "vs_plain": "plain"}
        for name, all_orders in played.items():
            row: dict[str, Any] = {"policy": name, "batch": batch, "task": task}
            row["tokens_per_s"] = float(1e3 * rates[name].mean())
            for key, bar in bars.items():
                ratios = rates[name] / rates[bar]
                row |= {key: float(ratios.mean()), f"{key}_min": float(ratios.min())}
            row |= {"best_fixed": best_fixed, "best_tree": best_tree, "orders": len(all_orders)}
            if task == "all":
                rounds = batch * sum(one.rounds for one in all_orders)
                row["tau"] = sum(one.tokens for one in all_orders) / rounds
                row["drafted"] = sum(one.drafted for one in all_orders) / rounds
                row["verified"] = sum(one.verified for one in all_orders) / rounds
            found.append(row)
    return found


def _rate(played: Played, tasks: Sequence[str], task: str) -> float:
    """Tokens per ms on the sequences of ``task``."""
    if task == "all":
        return played.rate
    tokens, ms = np.sum([totals for sequence, totals in played.by_sequence.items() if tasks[sequence] == task], axis=0)
    return float(tokens / ms)

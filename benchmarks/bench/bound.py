"""What the clairvoyant bound is for the measured prompts, and how well replay predicts the wall clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from speckv.benchmarks.baselines import make_peer
from speckv.benchmarks.bench.plan import CHAIN, OURS, REGIMES, Plan
from speckv.benchmarks.bench.rows import Row
from speckv.benchmarks.collect.trace_making import make_traces
from speckv.benchmarks.collect.traces import Trace, read_traces
from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.replay.bounds import clairvoyant
from speckv.benchmarks.replay.engine import play
from speckv.benchmarks.replay.positions import Positions
from speckv.benchmarks.replay.regimes import MOST_LEVELS, Measured, Regime
from speckv.controller.features import compression_level
from speckv.controller.policies import make_policy
from speckv.controller.policy import Policy
from speckv.integrations.models import resolve
from speckv.integrations.runtime import Controller

TRACE_BATCH = 16

DATA = Path("benchmarks/data")
TRACES = {"bf16": "heldout-bf16", "int8": "heldout-int8", "nf4": "heldout-nf4"}
"""The repository's traces by regime; of the built-in held-out prompts on the Qwen pair."""


def trace_prompts(plan: Plan, out: Path, report: Report) -> dict[str, Path]:
    """Trace the plan's prompts in every regime, beside ``out``; files that are there already are taken as they are."""
    files: dict[str, Path] = {}
    if resolve(plan.pair).draft is None:  # a draft that is the target with noise, which is not worth tracing
        return files
    for regime in plan.regimes:
        files[regime] = out.with_suffix(f".trace-{regime}.parquet")
        if not _holds(files[regime], plan):
            target, draft = REGIMES[regime]
            batch = min(TRACE_BATCH, len(plan.prompts))
            make_traces(files[regime], plan.prompts, plan.pair, target, draft, plan.tokens, MOST_LEVELS, batch, report)
    return files


def _holds(path: Path, plan: Plan) -> bool:
    if not path.exists():
        return False
    traces, facts = read_traces(path)
    traced = {trace.prompt_id for trace in traces} >= {prompt.id for prompt in plan.prompts}
    return traced and facts["pair"] == plan.pair and facts["tokens"] >= plan.tokens


def bounds(
    result: Mapping[str, Any], traces: Mapping[str, Path], tokens: int, controller: str = "default"
) -> list[Row]:
    """Per regime with a trace: rates against plain decoding, as measured and as replay predicts, and the bound.

    Only in transformers. Replay is told the calibrated costs and knows neither prefill nor the loop's own time.
    """
    made, loaded = [], Controller.load(controller)
    for regime, costs in result["costs"].items():
        if regime not in traces or not traces[regime].exists():
            continue
        recorded, _ = read_traces(traces[regime])
        entries = [entry for entry in result["entries"] if _is(entry, regime)]
        prompts = {entry["prompt_id"] for entry in entries}
        chosen = [shortened(trace, tokens) for trace in recorded if trace.prompt_id in prompts]
        if not chosen:
            continue
        cost = _regime(regime, costs)
        policies = list(dict.fromkeys(entry["policy"] for entry in entries))
        positions = Positions(chosen, tokens)
        order = range(len(chosen))
        predicted = {policy: play(_policy(policy, cost, loaded), positions, cost, order).rate for policy in policies}
        of = {row["policy"]: row for row in result["rows"] if _is(row, regime) and row["task"] == "all"}
        row: Row = {"framework": "transformers", "regime": regime, "prompts": len(chosen)}
        bound = clairvoyant(positions, cost, order, siblings=OURS in policies)
        row["clairvoyant_vs_plain"] = bound.rate / predicted["plain"]
        row["predicted_vs_plain"] = {policy: rate / predicted["plain"] for policy, rate in predicted.items()}
        row["measured_vs_plain"] = {policy: of[policy]["vs_plain"] for policy in policies}
        made.append(row)
    return made


def shortened(trace: Trace, tokens: int) -> Trace:
    """The first ``tokens`` positions of a trace, runs cut where the text then ends."""
    count = min(tokens, trace.tokens)
    left = count - np.arange(count)
    return replace(
        trace,
        matches=np.minimum(trace.matches[:count], left),
        lengths=np.minimum(trace.lengths[:count], np.maximum(1, left)),
        ranks=trace.ranks[:count],
        entropies=trace.entropies[:count],
        best=trace.best[:count],
    )


def _policy(name: str, regime: Regime, loaded: Controller) -> Policy:
    level = compression_level(regime.compression)
    if name.startswith("speckv"):
        mode = "step" if name.endswith("step") else "token"
        return make_policy(loaded, "throughput", mode, level, regime.cost_model(), siblings=name != CHAIN)
    return make_peer(name, loaded, level)


def _regime(name: str, costs: Mapping[str, Any]) -> Regime:
    verify = {int(rows): ms for rows, ms in costs["verify_ms"].items()}
    return Regime(name, REGIMES[name][0], "", Measured({1: {1: costs["draft_ms"]}}), Measured({1: verify}))


def _is(one: Mapping[str, Any], regime: str) -> bool:
    """Whether an entry or a row is of prompts alone in transformers, which replay is of."""
    return (one["framework"], one["regime"], one["concurrency"]) == ("transformers", regime, 1)

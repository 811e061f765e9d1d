"""What the clairvoyant bound is for the measured prompts, and how well replay predicts the wall clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from speckv.benchmarks.bench.plan import REGIMES, Plan
from speckv.benchmarks.bench.rows import Row
from speckv.benchmarks.peers import make_peer
from speckv.benchmarks.progress import Report
from speckv.benchmarks.replay.engine import Played, clairvoyant, play
from speckv.benchmarks.replay.regimes import MOST_ROWS, Regime
from speckv.benchmarks.trace_making import make_traces
from speckv.benchmarks.traces import Trace, read_traces
from speckv.controller.cost import CostModel, Costs
from speckv.controller.features import compression_level
from speckv.controller.policies import make_policy
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
            make_traces(
                files[regime], plan.prompts, plan.pair, target, draft, plan.tokens, MOST_ROWS - 1, batch, report
            )
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
        entries = [e for e in result["entries"] if (e["framework"], e["regime"]) == ("transformers", regime)]
        prompts = {entry["prompt_id"] for entry in entries}
        chosen = [shortened(trace, tokens) for trace in recorded if trace.prompt_id in prompts]
        if not chosen:
            continue
        cost = _regime(regime, costs)
        policies = list(dict.fromkeys(entry["policy"] for entry in entries))
        predicted = {policy: _rate(_played(policy, chosen, cost, tokens, loaded)) for policy in policies}
        of = {row["policy"]: row for row in result["rows"] if _is(row, regime)}
        row: Row = {"framework": "transformers", "regime": regime, "prompts": len(chosen)}
        row["clairvoyant_vs_plain"] = _rate(clairvoyant(chosen, cost, tokens)) / predicted["plain"]
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


def _played(policy: str, traces: Sequence[Trace], regime: Regime, tokens: int, loaded: Controller) -> list[Played]:
    level = compression_level(regime.compression)
    if policy.startswith("speckv"):
        mode = "step" if policy.endswith("step") else "token"
        return play(make_policy(loaded, "throughput", mode, level, regime.cost_model()), traces, regime, tokens)
    return play(make_peer(policy, loaded, level), traces, regime, tokens)


def _regime(name: str, costs: Mapping[str, Any]) -> Regime:
    model = CostModel(Costs({1: costs["draft_ms"]}, {int(rows): ms for rows, ms in costs["verify_ms"].items()}))
    return Regime.of(model, name, REGIMES[name][0])


def _rate(played: Sequence[Played]) -> float:
    return sum(one.tokens for one in played) / sum(one.ms for one in played)


def _is(row: Row, regime: str) -> bool:
    return (row["framework"], row["regime"], row["task"]) == ("transformers", regime, "all")

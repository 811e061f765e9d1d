"""From timed generations to the rows that are stored: ratios with intervals, latencies, and replay's prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from speckv.benchmarks.ratios import Timed, geometric_mean, rows
from speckv.benchmarks.tables import Table

FIXED = ("plain", "fixed-2", "fixed-4", "fixed-8")
"""Of these the best in hindsight is what ours is measured against."""

Entries = Mapping[str, Sequence[dict[str, Any]]]


def judge(entries: Entries) -> dict[str, Any]:
    """``rows`` by regime, policy and task, and the geometric means over regimes that the bars are about."""
    found = []
    for regime, prompts in entries.items():
        modes = list(prompts[0]["modes"])
        of = {mode: [prompt["modes"][mode] for prompt in prompts] for mode in modes}
        timed = {
            mode: Timed(np.array([o["tokens"] for o in ones], float), np.array([o["ms"] for o in ones]))
            for mode, ones in of.items()
        }
        tasks = [prompt["task"] for prompt in prompts]
        for row in rows(timed, tasks, FIXED):
            ones = [o for o, task in zip(of[row["policy"]], tasks, strict=True) if row["task"] in ("all", task)]
            found.append({"regime": regime, **row, **_latencies(ones)})
    return {"rows": found, "geometric_means": _means(found)}


def _latencies(ones: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """τ, wasted tokens, time to first token, and waits between two deliveries to a streamer, over generations."""
    waits = np.concatenate([np.diff(one["arrivals_ms"]) for one in ones])
    drafted, accepted = (sum(one[kind] for one in ones) for kind in ("drafted", "accepted"))
    return {
        "tau": sum(one["tokens"] for one in ones) / max(1, sum(one["rounds"] for one in ones)),
        "wasted": drafted - accepted,
        "drafted": drafted,
        "ttft_ms": float(np.median([one["arrivals_ms"][0] for one in ones])),
        "itl_p50_ms": float(np.percentile(waits, 50)) if len(waits) else None,
        "itl_p95_ms": float(np.percentile(waits, 95)) if len(waits) else None,
        "identical": sum(one["identical"] for one in ones),
        "prompts": len(ones),
    }


def _means(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    ours = [row for row in found if (row["policy"], row["task"]) == ("speckv", "all") and row["regime"] != "nf4-draft4"]
    keys = ("vs_plain", "vs_best_fixed", "vs_hf_default")
    return {key: geometric_mean([row[key] for row in ours]) for key in keys} if ours else {}


def summary(result: Mapping[str, Any]) -> Table:
    """Task "all" for a terminal."""
    header = (
        "regime",
        "mode",
        "tokens/s",
        "vs plain",
        "vs best fixed",
        "95 %",
        "τ",
        "TTFT",
        "ITL 50/95",
        "same output",
    )
    made = Table("End to end; waits in ms", header)
    for row in result["rows"]:
        if row["task"] != "all":
            continue
        low, high = row["ci"]["vs_best_fixed"]
        cells = [row["regime"], row["policy"], f"{row['tokens_per_s']:.2f}", f"{row['vs_plain']:.2f}"]
        cells += [f"{row['vs_best_fixed']:.2f}", f"{low:.2f}–{high:.2f}", f"{row['tau']:.2f}", f"{row['ttft_ms']:.0f}"]
        cells += [f"{row['itl_p50_ms']:.0f}/{row['itl_p95_ms']:.0f}", f"{row['identical']}/{row['prompts']}"]
        made.rows.append(cells)
    return made

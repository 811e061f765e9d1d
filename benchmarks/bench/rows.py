"""From timed generations to the rows that are stored: ratios with intervals, latencies, agreement of frameworks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from speckv.benchmarks.bench.plan import ADAPTIVE, OURS, PLAIN, Entry
from speckv.benchmarks.common.ratios import AGAINST, Timed, geometric_mean, interval, resamples, rows
from speckv.benchmarks.common.tables import Table

Row = dict[str, Any]


def judge(entries: Sequence[Entry], against: str = PLAIN) -> list[Row]:
    """A row per framework, regime, concurrency, policy and task; "all" is the task of the whole.

    The best fixed γ is that of plain decoding and the fixed γ that were run, in hindsight. Repetitions of a prompt
    are pooled, and intervals resample prompts. ``against`` is the policy that stands for plain decoding in all this,
    where it is another one.
    """
    found = []
    for place in dict.fromkeys(map(_place, entries)):
        here = [entry for entry in entries if _place(entry) == place]
        policies = list(dict.fromkeys(entry["policy"] for entry in here))
        tasks = {entry["prompt_id"]: entry["task"] for entry in here}
        reference = {_turn(entry): entry["output"] for entry in here if entry["policy"] == against}
        called = {against: PLAIN}
        timed = {called.get(policy, policy): _timed(here, policy, list(tasks)) for policy in policies}
        fixed = [policy for policy in timed if policy == PLAIN or policy.startswith("fixed-")]
        for row in rows(timed, list(tasks.values()), fixed):
            row |= {key: against if row[key] == PLAIN else row[key] for key in ("policy", "best_fixed")}
            ones = [e for e in here if e["policy"] == row["policy"] and row["task"] in ("all", e["task"])]
            framework, regime, concurrency = place
            found.append({"framework": framework, "regime": regime, "concurrency": concurrency, **row})
            found[-1] |= _latencies(ones)
            found[-1]["identical"] = sum(e["output"] == reference[_turn(e)] for e in ones)
    return sorted(found, key=lambda row: row["task"] != "all")


def _which(row: Row) -> tuple[str, str, str]:
    return row["framework"], row["policy"], row["task"]


def _place(entry: Entry) -> tuple[str, str, int]:
    return entry["framework"], entry["regime"], entry["concurrency"]


def _turn(entry: Entry) -> tuple[str, int]:
    return entry["prompt_id"], entry["repeat"]


def _timed(entries: Iterable[Entry], policy: str, prompts: Sequence[str]) -> Timed:
    of = {prompt: [0.0, 0.0] for prompt in prompts}
    for entry in entries:
        if entry["policy"] == policy:
            of[entry["prompt_id"]][0] += entry["tokens"]
            of[entry["prompt_id"]][1] += entry["ms"]
    tokens, ms = np.array(list(of.values())).T
    return Timed(tokens, ms)


def _latencies(ones: Sequence[Entry]) -> Row:
    """Time to first token and waits between tokens, in ms, as a reader of the stream has them; and of the rounds, where
    they are known, τ, wasted tokens and siblings."""
    waits = np.concatenate([np.diff(one["arrivals_ms"]) for one in ones])
    firsts = [one["arrivals_ms"][0] for one in ones if one["arrivals_ms"]]
    made: Row = {
        "ttft_ms": float(np.median(firsts)) if firsts else None,
        "itl_mean_ms": float(np.mean(waits)) if len(waits) else None,
        "itl_p50_ms": float(np.percentile(waits, 50)) if len(waits) else None,
        "itl_p95_ms": float(np.percentile(waits, 95)) if len(waits) else None,
        "runs": len(ones),
    }
    if not all("rounds" in one for one in ones):
        return made
    siblings, hits = (sum(sum(one.get(kind, {}).values()) for one in ones) for kind in ("siblings", "sibling_hits"))
    rounds, drafted, accepted = (sum(one[kind] for one in ones) for kind in ("rounds", "drafted", "accepted"))
    made["tau"] = sum(one["tokens"] for one in ones) / max(1, rounds)
    if ones[0]["policy"] == ADAPTIVE:  # SGLang tells what it accepted, and not what it drafted
        return made | {"accepted": accepted}
    return made | {
        "mean_gamma": drafted / max(1, rounds),
        "drafted": drafted,
        "accepted": accepted,
        "wasted": drafted - accepted,
        "siblings": siblings,
        "sibling_hits": hits,
    }


def means(
    found: Sequence[Row], entries: Sequence[Entry] = (), regimes: Sequence[str] = ("bf16", "int8", "nf4")
) -> list[Row]:
    """Per framework the geometric means of our ratios: over ``regimes`` in it, and over its concurrencies.

    ``ci`` are the 95 % intervals, over prompts, of those against a policy that is not chosen in hindsight, where there
    are ``entries``.
    """
    made: list[Row] = []
    for framework in dict.fromkeys(row["framework"] for row in found):
        ours = [row for row in found if _which(row) == (framework, OURS, "all")]
        ours = [row for row in ours if row["regime"] in regimes]
        if not ours:
            continue
        keys = [key for key in (*AGAINST, "vs_best_fixed") if ours[0][key]]
        mean: Row = {key: geometric_mean([row[key] for row in ours]) for key in keys}
        places = {_place(row) for row in ours}
        here = [entry for entry in entries if _place(entry) in places]
        if here:
            mean["ci"] = {key: _mean_interval(here, policy) for key, policy in AGAINST.items() if key in mean}
        made.append({"framework": framework, **mean})
    return made


def _mean_interval(entries: Sequence[Entry], policy: str) -> list[float]:
    """Of the geometric mean over places of our tokens per second over those of ``policy``, prompts resampled."""
    prompts = list(dict.fromkeys(entry["prompt_id"] for entry in entries))
    weights = resamples(len(prompts))
    logs = []
    for place in dict.fromkeys(map(_place, entries)):
        here = [entry for entry in entries if _place(entry) == place]
        ours, other = (_timed(here, name, prompts) for name in (OURS, policy))
        logs.append(
            np.log((weights @ ours.tokens) * (weights @ other.ms) / (weights @ other.tokens) / (weights @ ours.ms))
        )
    return interval(np.exp(np.mean(logs, axis=0)))


def agreement(entries: Sequence[Entry]) -> list[Row]:
    """How far plain decoding of the frameworks agrees: prompts with one output, and tokens before the first other.

    In float32 they should be one. In bf16 each framework's kernels round differently and near-ties fall apart.
    """
    said: dict[tuple[str, str], dict[str, list[int]]] = {}
    for entry in entries:
        if entry["policy"] == PLAIN and entry["repeat"] == 0 and entry["concurrency"] == 1:
            said.setdefault((entry["regime"], entry["framework"]), {})[entry["prompt_id"]] = entry["output"]
    made = []
    for (regime, framework), outputs in said.items():
        for (other_regime, other), others in said.items():
            shared = outputs.keys() & others.keys()
            if regime == other_regime and framework < other and shared:
                pairs = [(outputs[prompt], others[prompt]) for prompt in shared]
                alike = [len(list(takewhile(lambda ab: ab[0] == ab[1], zip(*pair, strict=False)))) for pair in pairs]
                row: Row = {"regime": regime, "frameworks": [framework, other], "prompts": len(pairs)}
                row |= {"identical": sum(one == another for one, another in pairs)}
                made.append(row | {"tokens_alike": sum(alike), "tokens": sum(len(one) for one, _ in pairs)})
    return made


def summary(found: Sequence[Row]) -> Table:
    """Task "all" with all that is known of it, for a page."""
    header = ("framework", "target", "at once", "policy", "tokens/s", "vs plain", "vs best fixed", "95 %")
    more = ("vs hf-default", "τ", "γ", "wasted", "siblings", "TTFT", "ITL 50/95", "as plain")
    made = Table("Tokens per second; waits in ms", (*header, *more), bold=OURS, keys=4)
    for row in found:
        if row["task"] != "all":
            continue
        low, high = row["ci"]["vs_best_fixed"]
        cells = [row["framework"], row["regime"], str(row["concurrency"]), row["policy"], f"{row['tokens_per_s']:.2f}"]
        cells += [f"{row['vs_plain']:.2f}", f"{row['vs_best_fixed']:.2f}", f"{low:.2f}–{high:.2f}"]
        cells += ["–" if row["vs_hf_default"] is None else f"{row['vs_hf_default']:.2f}", f"{row['tau']:.2f}"]
        drafts = row["policy"] != PLAIN and "mean_gamma" in row
        cells += [f"{row['mean_gamma']:.1f}" if drafts else "–", str(row.get("wasted", "–"))]
        cells += [f"{row['sibling_hits']}/{row['siblings']}" if row.get("siblings") else "–"]
        cells += ["–" if row["ttft_ms"] is None else f"{row['ttft_ms']:.0f}"]
        waits = "–" if row["itl_p50_ms"] is None else f"{row['itl_p50_ms']:.0f}/{row['itl_p95_ms']:.0f}"
        made.rows.append([*cells, waits, f"{row['identical']}/{row['runs']}"])
    return made

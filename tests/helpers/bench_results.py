"""Results of `speckv bench` as its own code would store them, of generations that are made up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speckv.benchmarks.bench.plan import KIND, VERSION
from speckv.benchmarks.bench.rows import agreement, judge, means

Where = tuple[str, str, int]

DRAFT_MS, VERIFY_MS = 20.0, {1: 100.0, 3: 105.0, 5: 112.0, 9: 130.0}
TASKS = ("code", "math", "chat", "summarization")

PAYS = {"plain": 1.0, "fixed-2": 1.2, "fixed-4": 1.25, "hf-default": 1.1, "speckv": 1.5}
LOSES = {"plain": 1.0, "fixed-2": 0.7, "fixed-4": 0.6, "hf-default": 0.6, "speckv": 0.9}
LEVEL = {"plain": 1.0, "fixed-2": 0.7, "fixed-4": 0.6, "hf-default": 0.6, "speckv": 1.03}


def bench_result(
    rates: Mapping[Where, Mapping[str, float]],
    prompts: int = 12,
    noise: float = 0.03,
    hopeful: float = 0.0,
    tokens: int = 40,
    name: str = "",
    servers: tuple[str, ...] = (),
    **changed: Any,
) -> dict[str, Any]:
    """The content of a result file in which each policy is so many times as fast as plain, give or take ``noise``.

    Ours is ``hopeful`` by so much in its predicted probabilities; ``name`` is added to every name in it. ``servers``
    names those that were measured where they ran, the first of which stands for plain.
    """
    rng = np.random.default_rng(7)
    entries = [
        _entry(rng, place, policy, ratio, number, noise, hopeful, tokens, name)
        for place, of in rates.items()
        for number in range(prompts)
        for policy, ratio in of.items()
    ]
    rows = judge(entries, *servers[:1])
    costs = {"draft_ms": DRAFT_MS, "verify_ms": {str(rows): ms for rows, ms in VERIFY_MS.items()}}
    regimes = dict.fromkeys(regime for framework, regime, _ in rates if framework == "transformers")
    vs_plain = {row["policy"]: row["vs_plain"] for row in rows if row["task"] == "all"}
    result = {
        "kind": KIND,
        "version": VERSION,
        "command": f"speckv bench r.json{name}",
        "revision": "0123456789ab+",
        "machine": {"cpu": f"Some CPU{name}", "formats": "avx2", "cores": 2, "system": "Linux"},
        "versions": {"python": "3.11.7", "torch": "2.13.0+cpu"},
        "settings": {"pair": f"TARGET/a,DRAFT/b{name}", "tokens": tokens, "temperature": 0.0, "prompts": prompts}
        | ({"servers": dict.fromkeys(servers, "http://a:1")} if servers else {}),
        "costs": {regime + name: costs for regime in regimes},
        "skipped": [["sglang", "all", f"sglang is not installed here{name}"]],
        "rows": rows,
        "means": means(rows),
        "agreement": agreement(entries),
        "bound": [
            {
                "framework": "transformers",
                "regime": regime + name,
                "prompts": prompts,
                "clairvoyant_vs_plain": 1.9,
                "predicted_vs_plain": {policy: ratio * 1.05 for policy, ratio in vs_plain.items()},
                "measured_vs_plain": vs_plain,
            }
            for regime in regimes
        ],
        "entries": entries,
    }
    return result | changed


def both_frameworks() -> dict[str, Any]:
    """Two regimes in transformers, of which one pays, and two concurrencies in SGLang, of which the last loses."""
    rates: dict[Where, Mapping[str, float]] = {("transformers", "bf16", 1): PAYS, ("transformers", "nf4", 1): LOSES}
    for concurrency, ratio in ((1, 1.4), (8, 0.9)):
        rates["sglang", "bf16", concurrency] = {"plain": 1.0, "fixed-4": ratio - 0.2, "speckv": ratio}
    return bench_result(rates)


def save(result: Mapping[str, Any], path: Path) -> Path:
    path.write_text(json.dumps(result), encoding="utf-8")
    return path


def _entry(
    rng: np.random.Generator,
    place: Where,
    policy: str,
    ratio: float,
    number: int,
    noise: float,
    hopeful: float,
    tokens: int,
    name: str,
) -> dict[str, Any]:
    framework, regime, concurrency = place
    steps, predicted, written = [], [], 0
    while written < tokens:
        gamma = {"plain": 0, "fixed-2": 2, "speckv": int(rng.integers(0, 7))}.get(policy, 4)
        chances = rng.uniform(0.5, 1.0, gamma)
        held = rng.random(gamma) < chances - hopeful
        accepted = int(np.argmin(held)) if not held.all() else gamma
        predicted += [(round(float(p), 4), i < accepted) for i, p in enumerate(chances) if i <= accepted]
        beside = gamma if policy == "speckv" else 0
        hit = bool(beside and accepted < gamma and rng.random() < 0.4)
        verify = float(np.interp(gamma + 1 + beside, list(VERIFY_MS), list(VERIFY_MS.values())))
        draft = round(DRAFT_MS * gamma * rng.uniform(0.9, 1.1), 2)
        steps.append([gamma, accepted, draft, round(verify, 2), beside, hit, gamma])
        written += accepted + 1 + hit
    ms = tokens * 100.0 / ratio * float(np.exp(noise * rng.normal())) / concurrency**0.6
    output = list(range(tokens)) if number or policy == "plain" else [*range(tokens - 1), 0]
    entry = {"framework": framework, "regime": regime + name, "policy": policy, "concurrency": concurrency}
    entry |= {"repeat": 0, "prompt_id": f"p{number}{name}", "task": TASKS[number % 4] + name, "tokens": tokens}
    entry |= {"ms": ms, "arrivals_ms": [round(ms * (i + 1) / tokens, 1) for i in range(tokens)], "output": output}
    entry |= {"rounds": len(steps), "drafted": sum(s[0] for s in steps), "accepted": sum(s[1] for s in steps)}
    entry["gammas"] = [step[0] for step in steps]
    entry["siblings"] = {"1": sum(step[4] for step in steps)}
    entry["sibling_hits"] = {"1": sum(step[5] for step in steps)}
    if framework == "transformers" and concurrency > 1:
        entry["arrivals_ms"] = []  # a batch has no streamer
    elif framework == "transformers":
        entry["steps"] = [] if policy == "plain" else steps
        entry |= {"predicted": predicted} if policy == "speckv" else {}
    return entry

"""Wall clock of SGLang with and without SPECKV: one server at a time, in mirrored order, at several concurrencies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speckv.benchmarks.prompts import Prompt, load_prompts
from speckv.benchmarks.sglang_server import Server

POLICIES = ("plain", "fixed-2", "fixed-4", "fixed-8", "speckv")
CONCURRENCIES = (1, 2, 4, 8)
FIXED = ("plain", "fixed-2", "fixed-4", "fixed-8")
RESAMPLES = 2000


@dataclass
class Measured:
    """One policy at one concurrency, over all its servers; an entry per prompt and repetition."""

    prompts: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    between_ms: list[float] = field(default_factory=list)
    verifies: int = 0
    drafted: float = 0.0
    accepted: float = 0.0
    texts: dict[int, list[int]] = field(default_factory=dict)
    wall: float = 0.0


def options(policy: str, draft: str, ceiling: int, slots: int) -> list[str]:
    """The server's options for a policy."""
    made = ["--max-running-requests", str(slots), "--max-total-tokens", "16384", "--context-length", "2048"]
    if policy == "plain":
        return made
    made += ["--speculative-draft-model-path", draft]
    if policy == "speckv":
        return [*made, "--speculative-algorithm", "SPECKV", "--speculative-num-steps", str(ceiling), "--enable-metrics"]
    gamma = int(policy.removeprefix("fixed-"))
    made += ["--speculative-algorithm", "STANDALONE", "--speculative-num-steps", str(gamma)]
    return [*made, "--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", str(gamma + 1)]


def run(
    target: str,
    draft: str,
    prompts: Sequence[Prompt] | None = None,
    tokens: int = 48,
    policies: Sequence[str] = POLICIES,
    concurrencies: Sequence[int] = CONCURRENCIES,
    dtype: str = "bfloat16",
    threads: int = 2,
    ceiling: int = 8,
    mirrored: bool = True,
    report: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Rows of tokens per second by policy and concurrency.

    ``target`` and ``draft`` are model folders or hub ids. Each policy's server runs twice, the second time in reverse
    order, unless ``mirrored`` is False. Before measuring, every server answers four prompts at each concurrency.
    """
    chosen = list(load_prompts("heldout")[:16] if prompts is None else prompts)
    results = {(policy, size): Measured() for policy in policies for size in concurrencies}
    for policy in [*policies, *(reversed(policies) if mirrored else ())]:
        report(f"{policy}: starting")
        server = Server(
            Path(target), *options(policy, draft, ceiling, max(concurrencies)), dtype=dtype, threads=threads
        )
        try:
            server.wait()
            for size in concurrencies:
                _answer(server, chosen[:4], size, tokens, Measured(), policy)
                measured = results[policy, size]
                _answer(server, chosen, size, tokens, measured, policy)
                report(f"{policy}, {size} at a time: {sum(measured.tokens) / measured.wall:.2f} tokens/s so far")
        finally:
            server.stop()
    return _rows(results, policies, concurrencies, tokens)


def _answer(server: Server, prompts: Sequence[Prompt], size: int, tokens: int, into: Measured, policy: str) -> None:
    """Send all prompts, ``size`` at a time, from an empty prefix cache."""
    server.post("/flush_cache")
    before = _counted(server) if policy == "speckv" else (0.0, 0.0)

    def one(index: int) -> tuple[int, float, list[float], list[int], dict[str, Any]]:
        start = time.perf_counter()
        arrivals: list[float] = []
        ids: list[int] = []
        facts: dict[str, Any] = {}
        for event in server.stream(
            "/generate",
            text=_chat(prompts[index].text),
            sampling_params={"temperature": 0, "max_new_tokens": tokens},
        ):
            ids, facts = event["output_ids"], event["meta_info"]
            arrivals += [1e3 * (time.perf_counter() - start)] * (facts["completion_tokens"] - len(arrivals))
        return index, time.perf_counter() - start, arrivals, ids, facts

    start = time.perf_counter()
    with ThreadPoolExecutor(size) as pool:
        answers = list(pool.map(one, range(len(prompts))))
    into.wall += time.perf_counter() - start
    for index, seconds, arrivals, ids, facts in answers:
        into.prompts.append(index)
        into.tokens.append(facts["completion_tokens"])
        into.seconds.append(seconds)
        into.first_ms.append(arrivals[0])
        into.between_ms += np.diff(arrivals).tolist()
        into.texts[index] = ids
        into.verifies += facts.get("spec_verify_ct", facts["completion_tokens"] - 1)
        if policy.startswith("fixed"):
            into.drafted += facts["spec_verify_ct"] * int(policy.removeprefix("fixed-"))
            into.accepted += facts["spec_num_correct_drafts"]
    if policy == "speckv":
        after = _counted(server)
        into.drafted += after[0] - before[0]
        into.accepted += after[1] - before[1]


def _chat(text: str) -> str:
    """The Qwen and SmolLM2 families' chat form, which both models of the offline pairs were trained on."""
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def _counted(server: Server) -> tuple[float, float]:
    """Drafted and accepted tokens so far, as SPECKV's metrics have them."""
    lines = server.get("/metrics").splitlines()

    def value(name: str) -> float:
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"speckv:{name}_total{{"))

    return value("drafted_tokens"), value("accepted_tokens")


def _rows(
    results: dict[tuple[str, int], Measured], policies: Sequence[str], concurrencies: Sequence[int], tokens: int
) -> list[dict[str, Any]]:
    rows = []
    for size in concurrencies:
        rates = {policy: sum(m.tokens) / m.wall for policy in policies if (m := results[policy, size])}
        fixed = [policy for policy in policies if policy in FIXED]
        for policy in policies:
            measured = results[policy, size]
            against = {"vs_plain": ["plain"], "vs_fixed4": ["fixed-4"], "vs_best_fixed": fixed}
            ratios = {
                key: rates[policy] / max(rates[name] for name in names)
                for key, names in against.items()
                if names and all(name in rates for name in names)
            }
            rows.append(
                {
                    "policy": policy,
                    "regime": "bf16",
                    "task": "all",
                    "concurrency": size,
                    **{key: ratios.get(key) for key in against},
                    "vs_hf_default": None,
                    "ci": {key: _interval(results, size, policy, against[key]) for key in ratios},
                    "tokens_per_s": rates[policy],
                    "tau": (sum(measured.tokens) - len(measured.tokens)) / max(1, measured.verifies),
                    "wasted": measured.drafted - measured.accepted,
                    "ttft_ms": float(np.median(measured.first_ms)),
                    "itl_p50_ms": float(np.percentile(measured.between_ms, 50)),
                    "itl_p95_ms": float(np.percentile(measured.between_ms, 95)),
                    "identical": _identical(measured, results.get(("plain", size))),
                    "prompts": len(measured.texts),
                    "tokens": tokens,
                }
            )
    return rows


def _identical(measured: Measured, plain: Measured | None) -> float | None:
    """Share of prompts answered with the tokens of plain decoding."""
    if plain is None:
        return None
    return sum(ids == plain.texts[index] for index, ids in measured.texts.items()) / len(measured.texts)


def _interval(
    results: dict[tuple[str, int], Measured], size: int, policy: str, against: Sequence[str]
) -> tuple[float, float]:
    """Paired bootstrap over prompts of the ratio of rates, Σtokens/Σlatency; the best peer chosen in each resample."""
    count = len(results[policy, size].texts)
    draws = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))

    def rates(name: str) -> Any:
        measured = results[name, size]
        sums = np.zeros((2, count))
        np.add.at(sums[0], measured.prompts, measured.tokens)
        np.add.at(sums[1], measured.prompts, measured.seconds)
        return sums[0][draws].sum(1) / sums[1][draws].sum(1)

    ratio = rates(policy) / np.max([rates(name) for name in against], axis=0)
    low, high = np.percentile(ratio, (2.5, 97.5))
    return float(low), float(high)

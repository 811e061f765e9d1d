"""What attaching adds to a step on a real pair: the signals and the decisions, as a share of the step's time."""

from __future__ import annotations

import sys
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import torch
import typer

from speckv.benchmarks.cli.app import CompressionOption, PairOption, prepare_torch
from speckv.benchmarks.collect.profile import chat_inputs
from speckv.benchmarks.common.command import JsonFile, make_app, run, show_and_store
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.prompts import load_prompts
from speckv.controller.policies.throughput import ThroughputPolicy
from speckv.controller.policy import Round
from speckv.integrations.models import load_pair
from speckv.integrations.transformers import attach, detach
from speckv.integrations.transformers import loop as loop_module

app = make_app()
DRAFTED = 4
"""Levels of every round, whatever was decided: where drafting does not pay there would be no step to measure."""


def measure(pair: str, compression: str, prompts: int, tokens: int) -> dict[str, Any]:
    """Per round with drafts: milliseconds of signals, of decisions and of the whole step, and their share.

    Signals are timed around the very calls the loop makes; on a CPU these run where they are called, so the clock sees
    all of them. Every decision is asked for, siblings included, and the round drafts DRAFTED levels all the same.
    """
    loop: Any = loop_module
    observing: Any = ThroughputPolicy
    target, draft, tokenizer = load_pair(pair, compression, "fp32" if compression == "fp32" else "bf16")
    spent = {"signals": 0.0}
    rows: list[dict[str, float]] = []
    stock_pack, stock_observe = loop.pack, observing.observe
    stock_begin, stock_deepen = observing.begin, observing.deepen

    def timed_pack(*arguments: Any) -> Any:
        started = perf_counter()
        packed = stock_pack(*arguments)
        spent["signals"] += perf_counter() - started
        return packed

    def timed_observe(self: ThroughputPolicy, outcome: Round) -> None:
        started = perf_counter()
        stock_observe(self, outcome)
        outcome.decide_ms += (perf_counter() - started) * 1e3

    def begin(self: ThroughputPolicy, this: Round, room: int) -> int:
        stock_begin(self, this, room)
        return min(DRAFTED, room)

    def deepen(self: ThroughputPolicy, this: Round) -> int:
        stock_deepen(self, this)
        return DRAFTED

    def listen(outcome: Round) -> None:
        signals_ms, spent["signals"] = spent["signals"] * 1e3, 0.0
        drafted = len(outcome.levels)
        if drafted and not (outcome.verify_prefill or outcome.draft_prefill):
            step = (outcome.draft_ms or 0.0) + (outcome.verify_ms or 0.0) + outcome.decide_ms
            rows.append({"signals": signals_ms, "decisions": outcome.decide_ms, "step": step, "drafted": drafted})

    loop.pack, observing.observe = timed_pack, timed_observe
    observing.begin, observing.deepen = begin, deepen
    try:
        attach(target, draft, listener=listen, same_tokenizer=True)
        generate: Any = target.generate
        for prompt in load_prompts("heldout")[:prompts]:
            inputs = chat_inputs(tokenizer, prompt.text).to(target.device)
            generate(**inputs, assistant_model=draft, do_sample=False, max_new_tokens=tokens)
    finally:
        loop.pack, observing.observe = stock_pack, stock_observe
        observing.begin, observing.deepen = stock_begin, stock_deepen
        detach(target)
    shares = [(row["signals"] + row["decisions"]) / row["step"] for row in rows]
    return {
        "pair": pair,
        "compression": compression,
        "steps": len(rows),
        "median_ms": {name: median(row[name] for row in rows) for name in ("signals", "decisions", "step")},
        "mean_drafted": sum(row["drafted"] for row in rows) / len(rows),
        "share_median": median(shares),
        "share_of_total": sum(row["signals"] + row["decisions"] for row in rows) / sum(row["step"] for row in rows),
        "signals_share": sum(row["signals"] for row in rows) / sum(row["step"] for row in rows),
    }


@app.command()
def attach_cost(
    pair: PairOption = "qwen2.5-coder",
    compression: CompressionOption = "bf16",
    prompts: Annotated[int, typer.Option(help="How many held-out prompts.", min=1)] = 4,
    tokens: Annotated[int, typer.Option(help="New tokens per prompt.", min=1)] = 32,
    json_file: JsonFile = None,
) -> None:
    """Time what attaching adds to a step of a real pair: signals and decisions, as a share of the step's time."""
    prepare_torch(0)
    result = measure(pair, compression, prompts, tokens)
    command = " ".join(["python -m speckv.benchmarks.micro.attach_cost", *sys.argv[1:]])
    result |= {"command": command, "threads": torch.get_num_threads(), "versions": versions(), "machine": machine()}
    show_and_store(result, json_file)


if __name__ == "__main__":
    run(app)

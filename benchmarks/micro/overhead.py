"""What the draft loop itself costs: a tiny pair whose models cost next to nothing, beside transformers' own loop."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import torch
import transformers
import typer
from transformers import LlamaConfig, LlamaForCausalLM

from speckv.benchmarks.collect.generation import counted_stock
from speckv.benchmarks.common.command import JsonFile, make_app, run, show_and_store
from speckv.benchmarks.common.machine import machine, versions
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policy import Policy, Round
from speckv.controller.stats import Stats
from speckv.integrations.transformers import attach_policy, detach
from speckv.integrations.transformers.cache import new_cache

app = make_app()
GAMMA, TOKENS, PROMPT = 4, 64, 32


class ReadsSignals(FixedPolicy):
    """γ = 4 through the per-token path: every token's signals are read and a decision is asked for."""

    asks = per_level = True

    def deepen(self, this: Round) -> int:
        return self.gamma


def tiny_pair() -> tuple[Any, Any]:
    """A one-layer Llama and another: what is left to time is the loop."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=256,
        max_position_embeddings=2048,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=0,
    )
    target, draft = LlamaForCausalLM(config).eval(), LlamaForCausalLM(config).eval()
    draft.generation_config.num_assistant_tokens = GAMMA
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    draft.generation_config.assistant_confidence_threshold = 0.0
    return target, draft


def bare_forward_us(draft: Any, ids: Any, repeats: int = 100) -> float:
    """Microseconds of one bare transformers forward of the draft with a cache: the floor of any loop."""
    kept = new_cache(draft)
    with torch.no_grad():
        draft(input_ids=ids, use_cache=True, logits_to_keep=1, **kept)
        started = perf_counter()
        for _ in range(repeats):
            draft(input_ids=ids[:, :1], use_cache=True, logits_to_keep=1, **kept)
    return (perf_counter() - started) / repeats * 1e6


def measure(rounds: int) -> dict[str, Any]:
    """Microseconds per drafted token of each loop, interleaved, median over ``rounds`` calls; and the ratios."""
    target, draft = tiny_pair()
    shipped = copy.deepcopy(draft.generation_config)
    ids = torch.randint(1, 256, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    settings = {"max_new_tokens": TOKENS, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}
    policies: dict[str, Policy] = {"per step": FixedPolicy(GAMMA), "per token": ReadsSignals(GAMMA)}

    def timed(loop: str, sample: bool) -> float:
        torch.manual_seed(1)
        counted = Stats()
        if loop == "transformers":
            draft.generation_config = copy.deepcopy(shipped)
            with counted_stock(target, counted.add):
                started = perf_counter()
                target.generate(ids, assistant_model=draft, do_sample=sample, **settings)
                seconds = perf_counter() - started
        else:
            attach_policy(target, draft, policies[loop], counted.add)
            started = perf_counter()
            target.generate(ids, assistant_model=draft, do_sample=sample, **settings)
            seconds = perf_counter() - started
            detach(target)
        return seconds / counted.drafted * 1e6

    result: dict[str, Any] = {"bare_draft_forward_us": median(bare_forward_us(draft, ids) for _ in range(5))}
    for name, sample in (("greedy", False), ("sampling", True)):
        loops = ("transformers", *policies)
        times: dict[str, list[float]] = {loop: [timed(loop, sample)] for loop in loops}
        for loop in loops:
            times[loop].clear()  # the first call of each is warm-up
        for _ in range(rounds):
            for loop in loops:
                times[loop].append(timed(loop, sample))
        pairs = {loop: [a / b for a, b in zip(times[loop], times["transformers"], strict=True)] for loop in policies}
        result[name] = {
            "us_per_drafted_token": {loop: median(values) for loop, values in times.items()},
            "ratio_to_transformers": {loop: median(values) for loop, values in pairs.items()},
            "ratio_quartiles": {loop: _quartiles(values) for loop, values in pairs.items()},
        }
    return result


def _quartiles(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]]


@app.command()
def overhead(
    rounds: Annotated[int, typer.Option(help="Timed calls of each loop.", min=1)] = 30,
    json_file: JsonFile = None,
) -> None:
    """Time the loop itself, beside transformers' own: a tiny pair whose models cost next to nothing."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    result = measure(rounds)
    result |= {"command": "python -m speckv.benchmarks.micro.overhead", "rounds": rounds, "gamma": GAMMA}
    show_and_store(result | {"versions": versions(), "machine": machine(), "threads": 1}, json_file)


if __name__ == "__main__":
    run(app)

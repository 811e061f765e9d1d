"""End to end at full cost: a draft that is its target's first layers, which need no weights to agree with the rest."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import LlamaForCausalLM

from speckv.benchmarks.collect.generation import PLAIN, STOCK, Modes
from speckv.benchmarks.common.ratios import Timed, rows
from speckv.benchmarks.gpu.models import make
from speckv.controller.stats import Stats
from speckv.integrations.transformers.calibrate import calibrate

MODES = (PLAIN, "fixed-2", "fixed-4", STOCK, "speckv-step", "speckv-chain", "speckv")
SHARE = 8
"""The draft has one layer of so many."""

SHARPNESS = 5.0
"""Standard deviation of the logits: text is then neither certain nor noise."""

PROMPT, WARM_UP_TOKENS = 64, 16


def pair(
    size: str, device: torch.device, dtype: torch.dtype, further: float
) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """Target and draft; what the layers say that only the target has is weighed by ``further``: 0, and they agree."""
    target = make(size, device, dtype)
    config = copy.deepcopy(target.config)
    config.num_hidden_layers = max(1, config.num_hidden_layers // SHARE)
    with torch.device("meta"):
        draft = LlamaForCausalLM(config).eval()
    draft.model, draft.lm_head = copy.copy(target.model), target.lm_head
    draft.model.__dict__["_modules"] = dict(target.model._modules)
    draft.model.config, draft.model.layers = config, target.model.layers[: config.num_hidden_layers]
    with torch.no_grad():
        for layer in target.model.layers[config.num_hidden_layers :]:
            layer.self_attn.o_proj.weight *= further
            layer.mlp.down_proj.weight *= further
        head = target.lm_head.weight
        head *= SHARPNESS / (float(head[:1000].float().std()) * config.hidden_size**0.5)
    return target, draft


def timed(
    size: str, device: torch.device, further: float, batches: Sequence[int], prompts: int, tokens: int
) -> Iterator[dict[str, Any]]:
    """Rows of tokens per second by batch and policy, on as many times ``batch`` random prompts, greedy, in bfloat16.

    All policies in turn on each, another one first each time; costs are calibrated first, as a user would.
    """
    target, draft = pair(size, device, torch.bfloat16, further)
    costs = calibrate(target, draft)
    for batch in batches:
        modes = Modes(target, draft, costs=costs)
        names = [name for name in MODES if batch == 1 or name != STOCK]
        taken: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
        totals = {name: Stats() for name in names}
        for number in range(-1, prompts):
            draws = torch.Generator().manual_seed(number + 1)
            ids = torch.randint(1, target.config.vocab_size, (batch, PROMPT), generator=draws).to(device)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            shift = number % len(names)
            for name in (*names[shift:], *names[:shift]):
                done = modes.generate(name, inputs, WARM_UP_TOKENS if number < 0 else tokens)
                if number >= 0:
                    taken[name].append((sum(map(len, done.sequences)), done.seconds * 1e3))
                    totals[name].merge(done.stats)
        of = {name: Timed(*torch.tensor(values).double().T.numpy()) for name, values in taken.items()}
        fixed = [name for name in names if name == PLAIN or name.startswith("fixed-")]
        for row in rows(of, ["random"] * prompts, fixed):
            if row["task"] == "all":
                yield {"further": further, "batch": batch, **row, "stats": totals[row["policy"]].as_dict()}

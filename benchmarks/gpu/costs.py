"""What forwards take on this device: by batch, tokens a sequence and context, in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import torch
from transformers import DynamicCache, LlamaForCausalLM

from speckv.benchmarks.replay.regimes import Measured, Regime
from speckv.integrations.transformers.branches import tree_inputs
from speckv.integrations.transformers.cache import as_keyword
from speckv.integrations.transformers.tree import Tree

REPEATS, WARM_UP = 15, 3
MASKED = 8
TRACE = "heldout-bf16"


def curve(
    model: LlamaForCausalLM, batches: Sequence[int], tokens: Sequence[int], contexts: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Rows with ``ms``, the median of REPEATS forwards of so many ``tokens`` for each of ``batch`` sequences.

    What does not fit into the device's memory is left out, and the row says so.
    """
    for batch in batches:
        for context in contexts:
            for count in tokens:
                row: dict[str, Any] = {"batch": batch, "tokens": count, "context": context}
                try:
                    yield row | {"ms": _forward_ms(model, batch, count, context)}
                except torch.cuda.OutOfMemoryError:
                    torch.cuda.empty_cache()
                    yield row | {"ms": None, "why": "out of memory"}


@torch.inference_mode()
def _forward_ms(model: LlamaForCausalLM, batch: int, tokens: int, context: int) -> float:
    cache = _filled(model, batch, context)
    ids = torch.ones(batch, tokens, dtype=torch.long, device=model.device)
    positions = torch.arange(context, context + tokens, device=model.device).expand(batch, -1)
    kept = as_keyword(model, cache)

    def forward() -> None:
        model(input_ids=ids, position_ids=positions, use_cache=True, **kept)
        cache.crop(-tokens)

    return _timed(forward, model.device)


def by_mask(model: LlamaForCausalLM, context: int) -> Iterator[dict[str, Any]]:
    """Rows with ``ms`` of a forward of MASKED tokens by the ``mask`` it is given, at lengths as a sequence's.

    ``own``: the model makes it; ``tree``: ours, as a tree takes it; ``boolean``: the same, not additive. Kernels that
    are chosen anew for every length cost time here, and none in :func:`curve`.
    """
    for mask in ("own", "tree", "boolean"):
        yield {"mask": mask, "tokens": MASKED, "context": context, "ms": _masked_ms(model, context, mask)}


@torch.inference_mode()
def _masked_ms(model: LlamaForCausalLM, context: int, mask: str) -> float:
    cache = _filled(model, 1, context)
    kept, tree = as_keyword(model, cache), Tree.chain([1] * (MASKED - 1))

    def forward() -> None:
        length = cache.get_seq_length()
        sequence = torch.ones(1, length + 1, dtype=torch.long, device=model.device)
        inputs = tree_inputs(model, cache, sequence, tree, None, None)
        if mask == "own":
            del inputs["attention_mask"]
        elif mask == "boolean":
            inputs["attention_mask"] = inputs["attention_mask"] == 0
        model(**inputs, use_cache=True, **kept)

    return _timed(forward, model.device)


def _filled(model: LlamaForCausalLM, batch: int, context: int) -> DynamicCache:
    """A cache of ``context`` tokens that nothing was computed for."""
    config = model.config
    heads = config.num_key_value_heads or config.num_attention_heads
    size = config.head_dim or config.hidden_size // config.num_attention_heads
    cache = DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        states = torch.zeros(batch, heads, context, size, dtype=model.dtype, device=model.device)
        cache.update(states, states.clone(), layer)
    return cache


def _timed(forward: Callable[[], None], device: torch.device) -> float:
    taken = []
    for number in range(WARM_UP + REPEATS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = perf_counter()
        forward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= WARM_UP:
            taken.append((perf_counter() - started) * 1e3)
    return median(taken)


def regime(
    name: str, draft: Sequence[dict[str, Any]], verify: Sequence[dict[str, Any]], batch: int, context: int
) -> Regime | None:
    """The replay's, of what was measured at this batch and context; None where too little fitted into memory."""
    tables = [
        {row["batch"] * row["tokens"]: row["ms"] for row in rows if (row["batch"], row["context"]) == (batch, context)}
        for rows in (draft, verify)
    ]
    known = [{rows: ms for rows, ms in sorted(table.items()) if ms is not None} for table in tables]
    if any(batch not in table or len(table) < 2 for table in known):
        return None
    of_draft, of_verify = (Measured({batch: table}) for table in known)
    return Regime(name, "fp16", TRACE, of_draft, of_verify, "measured on this device")

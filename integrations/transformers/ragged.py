"""Prompts of a batch fed for the first time, each without the padding before it that others are long enough to need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache, DynamicCache, PreTrainedModel

from speckv.integrations.transformers.cache import as_keyword

FREE = 256
"""Tokens up to which a forward is taken to last equally long, that of reading the weights: what an accelerator computes
in that time. A CPU's are fewer, so it gains less often than it could and never loses."""

Feed = Callable[[list[int], int, dict[str, Cache]], Tensor]
"""From rows of a batch, how many of its last columns they need, and an empty cache as a forward's keyword argument,
which it fills: logits (rows, ...)."""


def own_cache(model: PreTrainedModel) -> dict[str, Cache]:
    """One that keeps every column, of layers with a window as well: the masks say what is in a window."""
    return as_keyword(model, DynamicCache())


def parts(needed: Sequence[int]) -> list[list[int]]:
    """Which rows to feed together, ``needed`` columns of each: what takes least of all ways, in few forwards."""
    order = sorted(range(len(needed)), key=lambda row: -needed[row])
    ways: list[tuple[int, list[list[int]]]] = [(0, [])]
    for end in range(1, len(order) + 1):
        takes = [ways[start][0] + max(FREE, (end - start) * needed[order[start]]) for start in range(end)]
        start = takes.index(min(takes))
        ways.append((takes[start], [*ways[start][1], sorted(order[start:end])]))
    return ways[-1][1]


def feed_in_parts(model: PreTrainedModel, needed: Sequence[int], feed: Feed) -> tuple[Tensor, dict[str, Cache]]:
    """(logits of all rows, their cache of ``max(needed)`` columns) as ``feed`` of all of them would make them.

    Columns that a row does not need hold nothing that may be seen.
    """
    divided = parts(needed)
    kept = [own_cache(model) for _ in divided]
    logits = [feed(rows, max(needed[row] for row in rows), cache) for rows, cache in zip(divided, kept, strict=True)]
    if len(divided) == 1:
        return logits[0], kept[0]
    back = torch.tensor([row for rows in divided for row in rows]).argsort()
    whole = own_cache(model)
    (cache,) = whole.values()
    caches = [one for part in kept for one in part.values()]
    for index, layers in enumerate(zip(*(one.layers for one in caches), strict=True)):
        if all(layer.is_initialized for layer in layers):
            keys, values = (_joined(layers, name, max(needed), back) for name in ("keys", "values"))
            cache.update(keys, values, index)
    return torch.cat(logits)[back.to(logits[0].device)], whole


def _joined(layers: Sequence[Any], name: str, columns: int, order: Tensor) -> Tensor:
    """The states called ``name`` of all parts, (rows, heads, ``columns``, size) in this ``order``.

    ``layers`` lose theirs, so that no more than a layer is there twice.
    """
    states = [getattr(layer, name) for layer in layers]
    for layer in layers:
        setattr(layer, name, None)
    return torch.cat([pad(of, (0, 0, columns - of.shape[2], 0)) for of in states])[order.to(states[0].device)]

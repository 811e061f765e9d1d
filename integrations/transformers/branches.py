"""Trees in one forward of a model: whether it can, the masks that this takes, and the cache's rows afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from speckv.integrations.device import sent
from speckv.integrations.transformers.cache import filled, new_cache, parameters
from speckv.integrations.transformers.columns import additive, by_kind
from speckv.integrations.transformers.tree import Tree

FULL, SLIDING = "full_attention", "sliding_attention"
NEEDED = frozenset({"position_ids", "attention_mask"})
MOVABLE = frozenset({DynamicLayer, DynamicSlidingWindowLayer})
"""Layers of a cache that hold keys and values, one of each a token, and nothing else."""

PADDING, SEQUENCE, TRIED = 2, 6, 9
"""Tokens of padding, of it and a sequence, and of these and the tree after them, with which a model is tried out."""

OWN_WINDOWS = "attention_types"
"""A configuration with this (GPT-Neo's) has layers that look back by columns, of which their cache knows nothing."""

NEAR, NEAREST = 0.1, 0.3
"""A row of a tree says what a chain says, if it is so much nearer to that than to what another branch would say."""

NOISE = 3.0
"""So many times what one more row in the forward changes is as near: LLM.int8() quantises all rows by one another."""

ROUNDING = 1e-5

_tried: WeakKeyDictionary[PreTrainedModel, dict[str, int | None]] = WeakKeyDictionary()


def can_branch(model: PreTrainedModel) -> bool:
    """Whether ``model`` takes masks of its own, as a tree needs; found out once, by letting it verify one.

    It does not where attention takes no mask but a sequence's (flash attention), where positions are counted by columns
    (ALiBi), where padding is not masked as it says (GIT) or where layers have a state.
    """
    return bool(kinds_of_attention(model))


def known_to_branch(model: PreTrainedModel) -> bool | None:
    """What :func:`can_branch` has found; None where nobody has asked yet."""
    return bool(_tried[model]) if model in _tried else None


def kinds_of_attention(model: PreTrainedModel) -> dict[str, int | None]:
    """The kinds of attention that its layers have, with their windows; none where it cannot branch."""
    if model not in _tried:
        _tried[model] = _try_out(model)
    return _tried[model]


@torch.no_grad()
def _try_out(model: PreTrainedModel) -> dict[str, int | None]:
    config = model.config.get_text_config(decoder=True)
    if not parameters(model.forward) >= NEEDED or hasattr(config, OWN_WINDOWS):
        return {}
    ids = torch.linspace(config.vocab_size // 3, config.vocab_size - 1, TRIED, device=model.device).long()[None, :]
    mask = torch.ones_like(ids)
    mask[:, :PADDING] = 0
    positions = (mask.cumsum(1) - 1).clamp_(min=0)
    sequence, (first, second, third) = ids[:, :SEQUENCE], ids[0, SEQUENCE:].tolist()
    chains = [first, third, second], [first, third], [first, second, third]
    trees = [Tree([first, second, third], [0, 1, 1], 1), *map(Tree.chain, chains)]
    kept = new_cache(model)
    (cache,) = kept.values()
    try:
        before = slice(0, SEQUENCE - 1)
        prompt = {"attention_mask": mask[:, before], "position_ids": positions[:, before]}
        model(input_ids=sequence[:, before], use_cache=True, **prompt, **kept)
        kinds = {kind: getattr(cache.layers[layer], "sliding_window", None) for layer, kind in _firsts(model, cache)}
        if not {type(layer) for layer in cache.layers} <= MOVABLE or not kinds.keys() <= {FULL, SLIDING}:
            return {}
        inputs = [tree_inputs(model, cache, sequence, tree, mask, positions) for tree in trees]
        # The second again, as plain decoding feeds it.
        inputs.append(inputs[1] | {"attention_mask": mask, "position_ids": positions[:, SEQUENCE - 1 :]})
        said: list[Tensor] = []
        for tree, fed in zip([*trees, trees[1]], inputs, strict=True):
            row = tree.tokens.index(third) - len(tree.tokens)
            said.append(model(**fed, use_cache=True, **kept).logits[0, row].float())
            cache.crop(-tree.rows)
    except Exception:  # whatever a model raises that is not meant for this
        return {}
    branched, chained, shorter, wrong, plain = said
    off, noise, other, size = (
        float(one.abs().max()) for one in (branched - plain, shorter - chained, wrong - plain, plain)
    )
    return kinds if off <= min(max(NEAR * other, NOISE * noise), NEAREST * other) + ROUNDING * size else {}


def tree_inputs(
    model: PreTrainedModel, cache: Cache, sequence: Tensor, tree: Tree, padding: Tensor | None, positions: Tensor | None
) -> dict[str, Any]:
    """Ids, positions and masks of a forward over ``tree`` after ``sequence`` (1, n), whose last is not in ``cache``.

    ``padding`` (1, ≥ n) is the sequence's mask and ``positions`` (1, ≥ n) are its positions, where it has any.
    """
    length, device = sequence.shape[1], sequence.device
    sees = sent(tree.sees(), device)
    depths = sees.sum(1) - 1
    nodes = sent([tree.tokens], device, sequence.dtype)
    last = positions[0, length - 1] if positions is not None else length - 1
    dtype = mask_dtype(model)
    columns = length - 1 + depths
    masks = {}
    for layer, kind in _firsts(model, cache):
        count, offset = cache.get_mask_sizes(tree.rows, layer)
        before = torch.arange(offset, offset + count - tree.rows, device=device)
        known = torch.ones_like(before, dtype=torch.bool) if padding is None else padding[0, before].bool()
        allowed = torch.cat((known.expand(tree.rows, -1), sees), dim=1)
        if (window := getattr(cache.layers[layer], "sliding_window", None)) is not None:
            allowed &= columns[:, None] - torch.cat((before, columns)) < window
        masks[kind] = additive(allowed, dtype)[None, None]
    return {
        "input_ids": torch.cat((sequence[:, -1:], nodes), dim=1),
        "position_ids": (last + depths)[None, :],
        "attention_mask": by_kind(masks),
    }


def gather(cache: Cache, rows: Sequence[int], count: int) -> None:
    """Move what the last ``count`` tokens fed have in ``cache`` so that it begins with ``rows``, ascending."""
    moved: dict[torch.device, Tensor] = {}
    for layer in filled(cache):
        for states in (layer.keys, layer.values):
            if states.device not in moved:
                moved[states.device] = sent(list(rows), states.device)
            fed = states[..., states.shape[-2] - count :, :]
            fed[..., : len(rows), :] = fed.index_select(-2, moved[states.device])


def mask_dtype(model: PreTrainedModel) -> torch.dtype:
    """Of the states that ``model`` computes with."""
    embeddings: Any = model.get_input_embeddings()
    dtype: torch.dtype = embeddings.weight.dtype
    return dtype if dtype.is_floating_point else model.dtype


def _firsts(model: PreTrainedModel, cache: Cache) -> list[tuple[int, str]]:
    """(layer, kind of attention), the first of every kind."""
    named = getattr(model.config.get_text_config(decoder=True), "layer_types", None)
    kinds = named or [SLIDING if getattr(layer, "is_sliding", False) else FULL for layer in cache.layers]
    return [(kinds.index(kind), kind) for kind in dict.fromkeys(kinds)]

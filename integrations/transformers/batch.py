"""A target and a draft for several sequences at once, whose caches grow by columns that are theirs or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from speckv.integrations.device import sent
from speckv.integrations.transformers.branches import kinds_of_attention, mask_dtype
from speckv.integrations.transformers.cache import as_keyword
from speckv.integrations.transformers.columns import Columns
from speckv.integrations.transformers.direct import forward_of
from speckv.integrations.transformers.draft import DraftModel
from speckv.integrations.transformers.sequence import TokenSequence
from speckv.integrations.transformers.target import DecodePlainly, TargetModel
from speckv.integrations.transformers.tree import Tree


def _own_cache(model: PreTrainedModel) -> dict[str, Cache]:
    """One that keeps every column, of layers with a window as well: the masks say what is in a window."""
    return as_keyword(model, DynamicCache())


class TargetBatch(TargetModel):
    """:class:`TargetModel` for n ≥ 2 sequences; the first forward is the prompts' alone, without drafted tokens."""

    branches = True

    def __init__(self, model: PreTrainedModel, keywords: dict[str, Any], private: bool) -> None:
        super().__init__(model, keywords, private)
        if not (self.text_only and kinds_of_attention(model)) or "token_type_ids" in self.keywords:
            raise DecodePlainly(f"{type(model).__name__} cannot verify several prompts at once")
        self.keywords |= _own_cache(model)
        self.kinds, self.dtype = kinds_of_attention(model), mask_dtype(model)
        self.places: Tensor | None = None

    def room(self, lengths: Sequence[int]) -> int:
        return min(self.reach.room(length) for length in lengths) if self.prompt else 0

    def verify(self, sequences: Sequence[TokenSequence], trees: Sequence[Tree]) -> Tensor:
        if not self.prompt:
            return self._prefill(sequences)
        device, count = self.columns.held.device, max(tree.rows for tree in trees)
        follows = np.tile(np.eye(count, dtype=np.bool_), (len(trees), 1, 1))
        for number, tree in enumerate(trees):
            follows[number, : tree.rows, : tree.rows] = tree.sees()
        sees = sent(follows, device)
        rows = [
            sequence.last(1) + tree.tokens + [0] * (count - tree.rows)
            for sequence, tree in zip(sequences, trees, strict=True)
        ]
        lengths = sent([sequence.length for sequence in sequences], device)
        self.places = places = (lengths - 1)[:, None] + sees.sum(2) - 1
        masks = self.columns.masks(sees, places, self.kinds, self.dtype)
        inputs = {name: value for name, value in self.keywords.items() if value is not None}
        inputs |= {"input_ids": sent(rows, device), "attention_mask": masks}
        inputs["position_ids"] = places + self.shift[:, None]
        return self._forward(inputs, count)[0]

    def _prefill(self, sequences: Sequence[TokenSequence]) -> Tensor:
        ids = torch.cat([sequence.ids for sequence in sequences])
        self.prompt = ids.shape[1]
        mask, positions = self.keywords.get("attention_mask"), self.keywords.get("position_ids")
        inputs = self.prepare(ids, next_sequence_length=None, is_first_iteration=True, **self.keywords)
        logits, _ = self._forward(inputs, 1)
        self.forward = forward_of(self.model)
        self._check_length(self.cache, self.prompt)
        held = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        places = torch.arange(self.prompt, device=ids.device).expand_as(ids)
        self.columns = Columns(len(ids), ids.device)
        self.columns.append(held, places)
        # A sequence's positions go on from its prompt's last, as in generate().
        last = held.long().cumsum(-1)[:, -1] - 1 if positions is None else positions[:, -1]
        self.shift = last - (self.prompt - 1)
        return logits

    def keep(self, trees: Sequence[Tree], rows: Sequence[Sequence[int]]) -> None:
        if self.places is None:  # the prompts, of which all is kept
            return
        held = np.zeros(self.places.shape, dtype=np.bool_)
        for number, kept in enumerate(rows):
            held[number, list(kept)] = True
        self.columns.append(sent(held, self.places.device), self.places)
        self.places = None
        self.columns.compact(self.cache)

    def select(self, sequences: Sequence[int]) -> None:
        self.columns.select(sequences, self.cache)
        self.shift = self.shift[sent(list(sequences), self.shift.device)]


class DraftBatch(DraftModel):
    """:class:`DraftModel` for n ≥ 2 sequences; a sequence's tokens are fed at the right of a forward of all."""

    def __init__(self, model: PreTrainedModel, mask: Tensor, vocabulary: int) -> None:
        super().__init__(model, None, vocabulary)
        self.kinds, self.dtype = kinds_of_attention(model), mask_dtype(model)
        if not self.kinds:
            raise DecodePlainly(f"a {type(model).__name__} cannot draft for several prompts at once")
        self.known = mask.to(self.device).bool()
        self.positions = (self.known.long().cumsum(1) - 1).clamp_(min=0)
        self.unknown = (~self.known).sum(1, keepdim=True)
        self.held = [0] * len(mask)
        self.kept = _own_cache(model)
        self.columns = Columns(len(mask), self.device)

    def room(self, lengths: Sequence[int]) -> int:
        return super().room([max(lengths)])

    def stale(self, lengths: Sequence[int]) -> list[int]:
        return [max(0, length - 1 - held) for length, held in zip(lengths, self.held, strict=True)]

    def feed(self, sequences: Sequence[TokenSequence]) -> Tensor:
        lengths = [sequence.length for sequence in sequences]
        self.keep([length - 1 for length in lengths])
        most = max(length - held for length, held in zip(lengths, self.held, strict=True))
        fed = sent([[0] * (most - sequence.length) + sequence.last(most) for sequence in sequences], self.device)
        at = np.array(lengths)[:, None] - most + np.arange(most)
        places, new = sent(at, self.device), sent(at >= np.array(self.held)[:, None], self.device)
        positions, prompt = places - self.unknown, self.known.shape[1]
        if at.min() < prompt:
            inside = places.clamp(0, prompt - 1)
            new &= self.known.gather(1, inside) | (places >= prompt)
            positions = torch.where(places < prompt, self.positions.gather(1, inside), positions)
        self.held = lengths
        causal = torch.ones(most, most, dtype=torch.bool, device=self.device).tril()
        sees = (causal & new[:, None]) | torch.eye(most, dtype=torch.bool, device=self.device)
        return self._columns(fed, places, positions, new, sees)

    def step(self, tokens: Tensor) -> Tensor:
        places = sent(self.held, self.device)[:, None]
        self.held = [held + 1 for held in self.held]
        new = torch.ones_like(places, dtype=torch.bool)
        return self._columns(tokens, places, places - self.unknown, new, new[:, None])

    def keep(self, lengths: Sequence[int]) -> None:
        self.held = [min(held, length) for held, length in zip(self.held, lengths, strict=True)]
        self.columns.keep(sent(self.held, self.device))
        (cache,) = self.kept.values()
        if self.columns.held.shape[1]:
            self.columns.compact(cache)

    def select(self, sequences: Sequence[int]) -> None:
        (cache,) = self.kept.values()
        self.columns.select(sequences, cache)
        chosen = sent(list(sequences), self.device)
        self.known, self.positions, self.unknown = self.known[chosen], self.positions[chosen], self.unknown[chosen]
        self.held = [self.held[sequence] for sequence in sequences]

    def _columns(self, fed: Tensor, places: Tensor, positions: Tensor, new: Tensor, sees: Tensor) -> Tensor:
        """Logits of what follows ``fed`` (n, m), of which those that are ``new`` see which they ``sees`` (n, m, m)."""
        masks = self.columns.masks(sees, places, self.kinds, self.dtype)
        self.columns.append(new, places)
        return self._logits(fed, {"attention_mask": masks, "position_ids": positions})

"""A target and a draft for several sequences at once, whose caches grow by columns that are theirs or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from speckv.integrations.device import sent
from speckv.integrations.transformers.branches import kinds_of_attention, mask_dtype
from speckv.integrations.transformers.columns import Columns
from speckv.integrations.transformers.direct import forward_of
from speckv.integrations.transformers.draft import DraftModel
from speckv.integrations.transformers.ragged import feed_in_parts, own_cache
from speckv.integrations.transformers.sequence import TokenSequence
from speckv.integrations.transformers.target import LIKE_THE_LAST, DecodePlainly, TargetModel
from speckv.integrations.transformers.tree import Tree


class TargetBatch(TargetModel):
    """:class:`TargetModel` for n ≥ 2 sequences; the first forward is the prompts' alone, without drafted tokens."""

    branches = True

    def __init__(self, model: PreTrainedModel, keywords: dict[str, Any], private: bool, longest: int) -> None:
        """``longest``: the tokens that a sequence may come to."""
        super().__init__(model, keywords, private)
        if not self.reach.alike(longest):  # there the longest turns all that are fed with it, in whatever round
            raise DecodePlainly(f"the positions of a {type(model).__name__} switch before {longest} tokens")
        if not (self.text_only and kinds_of_attention(model)) or "token_type_ids" in self.keywords:
            raise DecodePlainly(f"{type(model).__name__} cannot verify several prompts at once")
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
        count, self.prompt = ids.shape
        given = {name: self.keywords.get(name) for name in LIKE_THE_LAST}
        mask, positions = given["attention_mask"], given["position_ids"]
        held = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        needed = [self.prompt - before for before in held.int().argmax(1).tolist()]

        def feed(rows: list[int], columns: int, kept: dict[str, Cache]) -> Tensor:
            keywords = self.keywords | kept
            for name, values in given.items():
                if values is not None:
                    keywords[name] = values[..., rows, -columns:]
            fed = ids[rows, -columns:]
            inputs = self.prepare(fed, next_sequence_length=None, is_first_iteration=True, **keywords)
            return self._forward(inputs, 1)[0]

        logits, kept = feed_in_parts(self.model, needed, feed)
        self.keywords |= kept
        self.forward = forward_of(self.model)
        self._check_length(self.cache, max(needed))
        places = torch.arange(self.prompt, device=ids.device).expand_as(ids)
        self.columns = Columns(count, ids.device)
        self.columns.append(held[:, -max(needed) :], places[:, -max(needed) :])
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
        self.before = self.known.int().argmax(1).tolist()
        self.held = [0] * len(mask)
        self.kept = own_cache(model)
        self.columns = Columns(len(mask), self.device)

    def room(self, lengths: Sequence[int]) -> int:
        return super().room([max(lengths)])

    def begins(self, lengths: Sequence[int]) -> bool:
        return not any(self.held)

    def stale(self, lengths: Sequence[int]) -> list[int]:
        known = self.before if self.begins(lengths) else self.held
        return [max(0, length - 1 - held) for length, held in zip(lengths, known, strict=True)]

    def feed(self, sequences: Sequence[TokenSequence]) -> Tensor:
        lengths = [sequence.length for sequence in sequences]
        self.keep([length - 1 for length in lengths])
        begins = self.begins(lengths)
        needed = [length - held for length, held in zip(lengths, self.before if begins else self.held, strict=True)]
        most = max(needed)
        ids = sent([[0] * (most - sequence.length) + sequence.last(most) for sequence in sequences], self.device)
        where = np.array(lengths)[:, None] - most + np.arange(most)
        places, new = sent(where, self.device), sent(where >= np.array(self.held)[:, None], self.device)
        positions, prompt = places - self.unknown, self.known.shape[1]
        if where.min() < prompt:
            inside = places.clamp(0, prompt - 1)
            new &= self.known.gather(1, inside) | (places >= prompt)
            positions = torch.where(places < prompt, self.positions.gather(1, inside), positions)
        self.held = lengths

        def feed(rows: list[int], columns: int, kept: dict[str, Cache]) -> Tensor:
            part, at, turned, seen = (of[rows, -columns:] for of in (ids, places, positions, new))
            return self._fed(part, at, turned, _causal(seen), Columns(len(rows), self.device), kept)

        if begins:
            logits, self.kept = feed_in_parts(self.model, needed, feed)
        else:
            logits = self._fed(ids, places, positions, _causal(new), self.columns, self.kept)
        self.columns.append(new, places)
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        places = sent(self.held, self.device)[:, None]
        self.held = [held + 1 for held in self.held]
        new = torch.ones_like(places, dtype=torch.bool)
        logits = self._fed(tokens, places, places - self.unknown, new[:, None], self.columns, self.kept)
        self.columns.append(new, places)
        return logits

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
        self.before = [self.before[sequence] for sequence in sequences]
        self.held = [self.held[sequence] for sequence in sequences]

    def _fed(
        self, ids: Tensor, places: Tensor, positions: Tensor, sees: Tensor, columns: Columns, kept: dict[str, Cache]
    ) -> Tensor:
        """Logits of what follows ``ids`` (n, m), of which each ``sees`` (n, m, m) some beside all that is held."""
        masks = columns.masks(sees, places, self.kinds, self.dtype)
        return self._logits(ids, {"attention_mask": masks, "position_ids": positions, **kept})


def _causal(new: Tensor) -> Tensor:
    """(n, m, m): which of m tokens fed sees which: itself, and before it those that are ``new`` (n, m)."""
    count = new.shape[1]
    before = torch.ones(count, count, dtype=torch.bool, device=new.device).tril()
    return (before & new[:, None]) | torch.eye(count, dtype=torch.bool, device=new.device)

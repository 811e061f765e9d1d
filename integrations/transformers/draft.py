"""The draft model with a cache of its own, driven one forward at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from speckv.controller.errors import SpecKVError
from speckv.integrations.transformers.cache import cache_name, new_cache, parameters, rolls_back
from speckv.integrations.transformers.direct import SAMPLE, forward_of, sample_ids
from speckv.integrations.transformers.reach import positions, restart
from speckv.integrations.transformers.sequence import TokenSequence

_examined: WeakKeyDictionary[PreTrainedModel, Facts] = WeakKeyDictionary()


def fit_vocabulary(rows: Tensor, size: int, absent: float = float("-inf")) -> Tensor:
    """``rows`` (..., V) cut, or padded with ``absent``, to ``size``: models of one tokenizer may pad V differently."""
    missing = size - rows.shape[-1]
    if missing == 0:
        return rows
    if missing < 0:
        return rows[..., :size]
    return torch.nn.functional.pad(rows, (0, missing), value=absent)


@dataclass(frozen=True)
class Facts:
    """What is found out about a draft model once; ``longest`` and ``restart`` are as ``reach`` has them."""

    longest: int
    restart: int
    parameters: frozenset[str]


def examine(model: PreTrainedModel) -> Facts:
    """Try out ``model`` as a draft, once.

    Raises SpecKVError when it cannot draft: it does not run as a language model with a cache, or what it keeps cannot
    be rolled back.
    """
    if model not in _examined:
        _try_out(model)
        _examined[model] = Facts(positions(model), restart(model), parameters(model.forward))
    return _examined[model]


@torch.no_grad()
def _try_out(model: PreTrainedModel) -> None:
    name, kind = model.config.name_or_path or type(model).__name__, type(model).__name__
    keyword = cache_name(parameters(model.forward))
    state = f"draft {name}: a {kind} keeps a state that cannot be rolled back; take a draft without recurrent layers"
    if keyword is None:
        raise SpecKVError(state)
    ids = sample_ids(model)
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": True}
    if "position_ids" in parameters(model.forward):
        inputs["position_ids"] = torch.arange(SAMPLE, device=model.device)[None, :]
    kept = new_cache(model)
    cache = kept[keyword]
    try:
        model(**inputs, **kept)
        usable = rolls_back(cache) and cache.get_seq_length() == SAMPLE
        if usable:  # as in a round: two tokens at once after some were taken off
            cache.crop(-2)
            model(**{name: value[:, -2:] if name != "use_cache" else value for name, value in inputs.items()}, **kept)
    except Exception as error:  # whatever a model raises that is not meant for this
        reason = next(iter(str(error).splitlines()), "")[:100]
        raise SpecKVError(
            f"draft {name}: a {kind} does not run as a language model with a cache ({type(error).__name__}: {reason})"
        ) from None
    if not usable:
        raise SpecKVError(state)


class DraftModel:
    """Feeds a draft model and keeps its key/value cache in step with the accepted sequence.

    ``attention_mask``: (1, n) where the prompt is padded, else None. ``vocabulary``: the target's, which may have ids
    that the draft does not know.
    """

    def __init__(self, model: PreTrainedModel, attention_mask: Tensor | None, vocabulary: int) -> None:
        self.model = model
        self.device = model.device
        self.vocabulary = vocabulary
        size = model.config.get_text_config(decoder=True).vocab_size
        self.last_id = size - 1 if size < vocabulary else None
        self.mask = None if attention_mask is None else attention_mask.to(self.device)
        self.facts = examine(model)
        self.forward = forward_of(model)
        self.counted = torch.empty(1, 0, dtype=torch.long)
        self.kept: dict[str, Any] = {}
        self.cached = 0

    def room(self, lengths: Sequence[int]) -> int:
        """The most tokens it can draft after sequences of ``lengths``: its positions may end before the target's."""
        (length,) = lengths
        return max(0, self.facts.longest + 1 - length)

    def begins(self, lengths: Sequence[int]) -> bool:
        """Whether it is to be fed sequences of these ``lengths`` from their beginnings."""
        (length,) = lengths
        return not self.cached or self.cached <= self.facts.restart < length

    def stale(self, lengths: Sequence[int]) -> list[int]:
        """How many tokens of sequences of these ``lengths`` the cache will lack beyond the newest, which none has."""
        (length,) = lengths
        return [max(0, length - 1 - (0 if self.begins(lengths) else self.cached))]

    def feed(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Logits (n, V) of what follows ``sequences``, of which the cache is fed what it does not hold."""
        (sequence,) = sequences
        length = sequence.length
        if self.begins([length]):
            self.kept, self.cached = new_cache(self.model), 0
        return self._forward(sequence.ids[:, self.cached :].to(self.device), length)

    def step(self, tokens: Tensor) -> Tensor:
        """Logits (n, V) of what follows ``tokens`` (n, 1), drafted last."""
        return self._forward(tokens, self.cached + 1)

    def keep(self, lengths: Sequence[int]) -> None:
        """Forget what was fed beyond the first so many tokens of each sequence: it went on otherwise, or will."""
        (length,) = lengths
        if self.cached:  # crop() fails on a sliding-window layer that has seen nothing
            next(iter(self.kept.values())).crop(min(0, length - self.cached))
            self.cached = min(length, self.cached)

    def select(self, sequences: Sequence[int]) -> None:
        """Go on with these ``sequences`` alone, the others having ended; nothing to do where there is one."""

    def _forward(self, fed: Tensor, end: int) -> Tensor:
        """Logits of what follows a sequence of ``end``; ``fed`` (1, m) is what the cache does not hold of it."""
        placed = self._placed(end)
        self.cached = end
        return self._logits(fed, {**placed, **self.kept})

    def _logits(self, fed: Tensor, beside: dict[str, Any]) -> Tensor:
        if self.last_id is not None:  # any id will do for those it does not know: the target decides
            fed = fed.clamp(max=self.last_id)
        logits, _ = self.forward({"input_ids": fed, "use_cache": True, **beside}, 1)
        return logits[:, -1]

    def _placed(self, end: int) -> dict[str, Tensor]:
        """Positions as ``generate`` counts them, and the mask where the prompt is padded."""
        placed = {}
        if self.mask is not None:
            missing = end - self.mask.shape[1]
            if missing > 0:
                self.mask = torch.cat((self.mask, self.mask.new_ones(1, missing)), dim=1)
            placed["attention_mask"] = self.mask[:, :end]
            counted = (placed["attention_mask"].long().cumsum(-1) - 1).clamp_(min=0)
        else:
            if self.counted.shape[1] < end:
                self.counted = torch.arange(2 * end, device=self.device)[None, :]
            counted = self.counted
        if "position_ids" in self.facts.parameters:
            placed["position_ids"] = counted[:, self.cached : end]
        return placed

"""The draft model with a cache of its own, driven one forward at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


def fit_vocabulary(logits: Tensor, size: int) -> Tensor:
    """``logits`` (..., V) cut, or padded with −∞, to ``size``: models of one tokenizer may pad V differently."""
    missing = size - logits.shape[-1]
    if missing == 0:
        return logits
    if missing < 0:
        return logits[..., :size]
    return torch.nn.functional.pad(logits, (0, missing), value=float("-inf"))


def bare_forward(decoder: torch.nn.Module) -> Callable[..., Any]:
    """``decoder``'s forward without transformers' wrappers around it, which collect outputs nobody asks for here.

    They cost a twelfth of a small forward. Where hooks hang on the decoder, or its forward was replaced (by offloading,
    say), it is called as it is.
    """
    hooks = (decoder._forward_hooks, decoder._forward_pre_hooks)
    if "forward" in vars(decoder) or any(hooks):
        whole: Callable[..., Any] = decoder
        return whole
    return partial(inspect.unwrap(type(decoder).forward), decoder)


def is_decoder_and_head(model: PreTrainedModel) -> bool:
    """Whether the model's logits are exactly its output embedding of its decoder's last hidden state.

    True of most causal language models, not of those that cap or scale logits. Asked by running one token both
    ways. Where it holds, the two are called directly: the wrappers around them cost an eighth of a small forward.
    """
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    if decoder is None or head is None or decoder is model or "position_ids" not in _parameters(decoder):
        return False
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    positions = torch.zeros_like(ids)
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits[:, -1]
        cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        inputs = {"input_ids": ids, "position_ids": positions, "past_key_values": cache, "use_cache": True}
        try:
            direct = head(bare_forward(decoder)(**inputs).last_hidden_state[:, -1])
        except Exception:  # whatever a forward does that was not meant to be called without its wrappers
            return False
    return whole.shape == direct.shape and bool(torch.allclose(whole, direct, rtol=1e-3, atol=1e-3, equal_nan=True))


def _parameters(module: torch.nn.Module) -> set[str]:
    return set(inspect.signature(module.forward).parameters)


class DraftModel:
    """Feeds a draft model and keeps its key/value cache in step with the accepted text.

    ``direct``: what :func:`is_decoder_and_head` says of the model. ``attention_mask``: (1, n) where the prompt is
    padded, else None; it may be longer than the ids given (a target cache handed in covers earlier tokens).
    ``vocabulary``: the target's, which may have ids that the draft does not know.
    """

    def __init__(self, model: PreTrainedModel, direct: bool, attention_mask: Tensor | None, vocabulary: int) -> None:
        self.model = model
        self.device = model.device
        config = model.config.get_text_config(decoder=True)
        self.mask = None if attention_mask is None else attention_mask.to(self.device)
        self.cache = DynamicCache(config=config)
        # Sliding-window layers forget what leaves the window unless told to keep it for a rollback.
        self.cache.activate_past_recording()
        self.cached = 0
        self.last_id = config.vocab_size - 1 if config.vocab_size < vocabulary else None
        self.decoder = bare_forward(model.get_decoder()) if direct else None
        self.head: Any = model.get_output_embeddings()
        self.last_row = {"logits_to_keep": 1} if "logits_to_keep" in _parameters(model) else {}
        self.positions = torch.empty(1, 0, dtype=torch.long)

    def rewind(self, length: int) -> int:
        """Keep the cache's part of the first ``length`` − 1 tokens; return how many rows the next step must feed."""
        keep = min(self.cached, length - 1)
        if self.cached:  # crop() fails on a sliding-window layer that has seen nothing
            self.cache.crop(keep - self.cached)
        self.cached = keep
        return length - keep

    def step(self, ids: Tensor, end: int) -> Tensor:
        """Logits (1, V) of the token after ``ids[:, :end]``, feeding what the cache does not hold yet."""
        feed = ids[:, self.cached : end]
        if self.last_id is not None:  # any id will do for those it does not know: the target decides
            feed = feed.clamp(max=self.last_id)
        if self.mask is not None:
            placed = self._masked(end)
        elif self.decoder is not None:
            placed = {"position_ids": self._positions(end)[:, self.cached : end]}
        else:
            placed = {}
        self.cached = end
        inputs = {"input_ids": feed, "past_key_values": self.cache, "use_cache": True, **placed}
        if self.decoder is not None:
            logits: Tensor = self.head(self.decoder(**inputs).last_hidden_state[:, -1])
            return logits
        whole: Tensor = self.model(**inputs, **self.last_row).logits
        return whole[:, -1]

    def _positions(self, end: int) -> Tensor:
        if self.positions.shape[1] < end:
            self.positions = torch.arange(2 * end, device=self.device)[None, :]
        return self.positions

    def _masked(self, end: int) -> dict[str, Tensor]:
        assert self.mask is not None
        missing = end - self.mask.shape[1]
        if missing > 0:
            self.mask = torch.cat((self.mask, self.mask.new_ones(1, missing)), dim=1)
        mask = self.mask[:, :end]
        positions = (mask.long().cumsum(-1) - 1).clamp_(min=0)
        return {"attention_mask": mask, "position_ids": positions[:, self.cached : end]}

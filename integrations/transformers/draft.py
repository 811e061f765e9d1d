"""The draft model with a cache of its own, driven one forward at a time."""

from __future__ import annotations

import inspect

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


class DraftModel:
    """Feeds a draft model and keeps its key/value cache in step with the accepted text.

    ``attention_mask``: (1, n) where the prompt is padded, else None. A mask may be longer than the ids given (a
    target cache handed in covers earlier tokens); its last columns count.
    """

    def __init__(self, model: PreTrainedModel, attention_mask: Tensor | None) -> None:
        self.model = model
        self.device = model.device
        self.mask = None if attention_mask is None else attention_mask.to(self.device)
        self.cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        # Sliding-window layers forget what leaves the window unless told to keep it for a rollback.
        self.cache.activate_past_recording()
        takes_it = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.last_row = {"logits_to_keep": 1} if takes_it else {}
        self.cached = 0
        self.last_id = model.config.get_text_config(decoder=True).vocab_size - 1

    def rewind(self, length: int) -> int:
        """Keep the cache's part of the first ``length`` − 1 tokens; return how many rows the next step must feed."""
        keep = min(self.cached, length - 1)
        if self.cached:  # crop() fails on a sliding-window layer that has seen nothing
            self.cache.crop(keep - self.cached)
        self.cached = keep
        return length - keep

    def step(self, ids: Tensor, end: int) -> Tensor:
        """Logits (1, V) of the token after ``ids[:, :end]``, feeding what the cache does not hold yet."""
        extra = dict(self.last_row)
        if self.mask is not None:
            extra |= self._masked(end)
        # The target may know ids that the draft does not; any id will do for those, since the target decides.
        feed = ids[:, self.cached : end].clamp(max=self.last_id)
        self.cached = end
        return self.model(input_ids=feed, past_key_values=self.cache, use_cache=True, **extra).logits[:, -1]

    def _masked(self, end: int) -> dict[str, Tensor]:
        assert self.mask is not None
        missing = end - self.mask.shape[1]
        if missing > 0:
            self.mask = torch.cat((self.mask, self.mask.new_ones(1, missing)), dim=1)
        mask = self.mask[:, :end]
        positions = (mask.long().cumsum(-1) - 1).clamp_(min=0)
        return {"attention_mask": mask, "position_ids": positions[:, self.cached :]}

"""A key/value cache handed in by the caller: assisted generation must not feed again what it already holds."""

from __future__ import annotations

import functools
import types
from typing import Any

from transformers import PreTrainedModel


def feed_only_what_is_new(target: PreTrainedModel, input_ids: Any, cache: Any) -> None:
    """Correct the first forward of this call where ``cache`` already holds a part of ``input_ids`` (1, n).

    transformers (5.19 to 5.23) feeds the whole prompt in assisted generation's first forward, on top of the cache,
    and so decodes from a prompt that is there twice. ``prepare_inputs_for_generation`` is told the right length, by
    an override on the instance that takes itself off with its first call.
    """
    held = cache.get_seq_length() if cache is not None else 0
    if not 0 < held < input_ids.shape[1]:
        return
    stock = type(target).prepare_inputs_for_generation

    @functools.wraps(stock)  # generate() reads the signature to validate its keyword arguments
    def once(self: PreTrainedModel, ids: Any, next_sequence_length: int | None = None, **arguments: Any) -> Any:
        self.__dict__.pop("prepare_inputs_for_generation", None)
        if next_sequence_length is None and arguments.get("is_first_iteration"):
            next_sequence_length = ids.shape[1] - held
        return stock(self, ids, next_sequence_length=next_sequence_length, **arguments)

    target.__dict__["prepare_inputs_for_generation"] = types.MethodType(once, target)

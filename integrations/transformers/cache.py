"""A model's key/value cache, under whatever name its forward takes it: made, rolled back, left as it was found."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from transformers import Cache, DynamicCache, PreTrainedModel

NAMES = ("cache", "past_key_values")
"""What forwards and outputs call it: since transformers 5.24.0, and before (there a deprecated keyword from then on)."""


def parameters(function: Callable[..., Any]) -> frozenset[str]:
    """The names that ``function`` takes."""
    return frozenset(inspect.signature(function).parameters)


def cache_name(known: Mapping[str, Any] | frozenset[str]) -> str | None:
    """Which of :data:`NAMES` is among ``known``, parameters or keyword arguments; None without any."""
    return next((name for name in NAMES if name in known), None)


def new_cache(model: PreTrainedModel) -> dict[str, Cache]:
    """An empty cache for ``model`` that can be rolled back, as the keyword argument of its forward."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    cache.activate_past_recording()
    return {cache_name(parameters(model.forward)) or NAMES[-1]: cache}


def stop_recording(cache: Cache) -> None:
    """Let layers with a window forget again what has left it: the cache goes back to its owner."""
    for layer in cache.layers:
        if hasattr(layer, "record_past"):
            layer.record_past = False

"""A model's key/value cache, under whatever name its forward takes it: made, rolled back, left as it was found."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transformers import Cache, DynamicCache, PreTrainedModel

NAMES = ("cache", "past_key_values")
"""What forwards and outputs call it: from transformers 5.24.0 on, and before."""

LAYERS = DynamicCache.__module__


def parameters(function: Callable[..., Any]) -> frozenset[str]:
    """The names that ``function`` takes."""
    return frozenset(inspect.signature(function).parameters)


def cache_name(known: Mapping[str, Any] | frozenset[str]) -> str | None:
    """Which of :data:`NAMES` is among ``known``, parameters or keyword arguments; None without any."""
    return next((name for name in NAMES if name in known), None)


def as_keyword(model: PreTrainedModel, cache: Cache) -> dict[str, Cache]:
    """``cache`` as the keyword argument of the forward of ``model``."""
    return {cache_name(parameters(model.forward)) or NAMES[-1]: cache}


def new_cache(model: PreTrainedModel) -> dict[str, Cache]:
    """An empty cache for ``model`` that can be rolled back, as the keyword argument of its forward."""
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    cache.activate_past_recording()
    return as_keyword(model, cache)


def is_state(cache: Any) -> bool:
    """Whether ``cache`` has nothing but layers with a state: no length, and no token of it can be taken off again."""
    return bool(getattr(cache, "layers", None)) and all(cache.is_linear)


def rolls_back(cache: Any) -> bool:
    """Whether tokens can be taken off ``cache`` again so that no trace of them is left.

    Layers with a state know it only after a forward. A model's own layers say that they can, and cannot (DeepSeek-V4).
    """
    known = isinstance(cache, DynamicCache) and all(type(layer).__module__ == LAYERS for layer in cache.layers)
    return known and bool(cache.is_croppable)


def filled(cache: Cache) -> Iterator[Any]:
    """Its layers that hold ``keys`` and ``values``."""
    return (layer for layer in cache.layers if getattr(layer, "is_initialized", False))


def stop_recording(cache: Cache) -> None:
    """Let layers with a window forget again what has left it: the cache goes back to its owner."""
    for layer in cache.layers:
        if hasattr(layer, "record_past"):
            layer.record_past = False

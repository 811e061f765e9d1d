"""Which attention backends can verify a tree; and the one to take where nobody named any."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from speckv.integrations.sglang.config import asked_config, ceiling, tree_sizes

logger = logging.getLogger("speckv")

CHOOSES = "sglang.srt.arg_groups.overrides.get_default_attn_backend"
"""What SGLang calls when no attention backend was named; hooked by its plugin mechanism."""

BRANCHING = {"flashinfer": "FlashInferAttnBackend", "triton": "TritonAttnBackend"}
"""By name, the classes of SGLang's attention backends whose verify sees what the mask says, whatever the top-k.

The others take a top-k of 1 for a chain, or keep a state a token.
"""


def obstacle(runner: Any) -> str | None:
    """Why the target's ``runner`` can verify chains only; None if it can verify a tree."""
    backend = type(runner.attn_backend).__name__
    if backend not in BRANCHING.values() or torch.version.hip is not None:
        return f"{backend} does not take a tree's mask"
    return model_obstacle(runner.model_config)


def model_obstacle(config: Any) -> str | None:
    """The same of a model by its SGLang ``config``, whatever attends for it."""
    if config.sliding_window_size is not None or config.is_hybrid_swa:
        return "a sibling's column is further from its window's edge than its position"
    if config.model_is_mrope:
        return "SGLang counts positions of several kinds along a chain"
    return None


def for_trees(original: Callable[..., str], server_args: Any, use_mla_backend: bool, model_config: Any) -> str:
    """``original``'s choice, or the first of BRANCHING that is there if the server is to verify trees."""
    from sglang.srt.platforms import current_platform

    chosen = original(server_args, use_mla_backend, model_config)
    config = asked_config(server_args)
    if config is None or chosen in BRANCHING or not current_platform.is_cuda():
        return chosen
    if (
        use_mla_backend
        or model_obstacle(model_config)
        or not tree_sizes(config, ceiling(config, server_args.speculative_num_steps))
    ):
        return chosen
    usable = [name for name in BRANCHING if name != "flashinfer" or _takes_flashinfer(model_config)]
    logger.info("speckv: %s instead of %s, which takes no tree's mask; name a backend to have it", usable[0], chosen)
    return usable[0]


def _takes_flashinfer(model_config: Any) -> bool:
    from sglang.srt.utils import is_flashinfer_available

    return bool(is_flashinfer_available()) and not model_config.has_attention_sinks

"""The attention backend where nobody named one: SGLang's choice, unless that cannot verify a tree and another can."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("speckv")

CHOOSES = "sglang.srt.arg_groups.overrides.get_default_attn_backend"
"""What SGLang calls when no attention backend was named; hooked by its plugin mechanism."""

BRANCHING = ("flashinfer", "triton")
"""Names of the backends whose verify sees what the mask says."""


def for_trees(original: Callable[..., str], server_args: Any, use_mla_backend: bool, model_config: Any) -> str:
    """``original``'s choice, or the first of BRANCHING that is there if the server is to verify trees."""
    from sglang.srt.platforms import current_platform

    from speckv.integrations.sglang.algorithm import NAME
    from speckv.integrations.sglang.config import ceiling, read_config, tree_sizes
    from speckv.integrations.sglang.tree import model_obstacle

    chosen = original(server_args, use_mla_backend, model_config)
    if str(server_args.speculative_algorithm).upper() != NAME or chosen in BRANCHING or not current_platform.is_cuda():
        return chosen
    config = read_config(server_args.speculative_adaptive_config)
    if use_mla_backend or model_obstacle(model_config) or not tree_sizes(config, ceiling(config, None)):
        return chosen
    usable = [name for name in BRANCHING if name != "flashinfer" or _takes_flashinfer(model_config)]
    logger.info("speckv: %s instead of %s, which takes no tree's mask; name a backend to have it", usable[0], chosen)
    return usable[0]


def _takes_flashinfer(model_config: Any) -> bool:
    from sglang.srt.utils import is_flashinfer_available

    return bool(is_flashinfer_available()) and not model_config.has_attention_sinks

"""Which of SGLang's arguments go together with rounds that are decided upon, and what these settle of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from speckv.integrations.sglang.config import LaunchError
from speckv.integrations.sglang.sampling import can_sample

logger = logging.getLogger("speckv")

UNSUPPORTED = (
    ("speculative_use_rejection_sampling", "--speculative-use-rejection-sampling"),
    ("enable_hierarchical_cache", "--enable-hierarchical-cache: what comes back from it has no draft cache"),
    ("enable_custom_logit_processor", "--enable-custom-logit-processor: SGLang verifies without such a processor"),
)
"""Server arguments that neither a separate draft nor a head can be combined with, and how to name them."""

PARALLEL = (("attn_dp_size", "data-parallel attention"), ("pp_size", "pipeline parallelism"))


def refuse(server_args: Any, name: str, others: Iterable[tuple[str, str]]) -> None:
    """LaunchError where ``server_args`` have what the algorithm ``name`` cannot do: UNSUPPORTED, or ``others``."""
    for argument, text in (*UNSUPPORTED, *others):
        if getattr(server_args, argument, None):
            raise LaunchError(f"speckv: {name} cannot be combined with {text}")
    if not can_sample():
        raise LaunchError(f"speckv: {name}: SGLang verifies greedily on this platform, whatever the temperature")
    for argument, text in PARALLEL:
        if getattr(server_args, argument, 1) > 1:
            raise LaunchError(f"speckv: {name} cannot be combined with {text}")


def settled(server_args: Any, steps: int) -> dict[str, Any]:
    """The arguments that follow from drafting up to ``steps`` tokens."""
    found: dict[str, Any] = {
        "speculative_eagle_topk": 1,
        "speculative_num_steps": steps,
        "speculative_num_draft_tokens": steps + 1,
    }
    if server_args.enable_mixed_chunk:
        found["enable_mixed_chunk"] = False
        logger.warning("speckv: --enable-mixed-chunk is turned off: a round has no place among chunks of prompts")
    return found

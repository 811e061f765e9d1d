"""The algorithm ``SPECKV`` as SGLang's registry and server arguments see it."""

from __future__ import annotations

import logging
from typing import Any

from sglang.srt.arg_groups.overrides import resolving_view
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from sglang.srt.speculative.spec_registry import CustomSpecAlgo

from speckv.integrations.sglang.combinations import refuse, settled
from speckv.integrations.sglang.config import NAME, LaunchError, ceiling, load_controller, read_config, tree_sizes
from speckv.integrations.sglang.pairing import check_pair

logger = logging.getLogger("speckv")

UNSUPPORTED = (
    ("speculative_adaptive", "--speculative-adaptive: SPECKV adapts by itself"),
    ("enable_lora", "--enable-lora: SGLang lets no standalone draft speculate for adapters"),
    ("lora_paths", "--lora-paths: SGLang lets no standalone draft speculate for adapters"),
)
"""Server arguments that a separate draft cannot be combined with, and how to name them."""


class SpecKVAlgorithm(CustomSpecAlgo):
    """Takes part in everything SGLang does for its own STANDALONE, whose worker it extends."""

    def is_standalone(self) -> bool:
        return True

    def supports_grammar_overlap(self) -> bool:
        return bool(SpeculativeAlgorithm.STANDALONE.supports_grammar_overlap())

    # The scheduler asks its algorithm for the following three, which CustomSpecAlgo lacks in 0.5.23.
    def need_topk(self) -> bool:
        return True

    def carries_draft_hidden_states(self) -> bool:
        return False

    def create_future_map(
        self,
        device: Any,
        req_to_token_pool: Any,
        needs_cpu_seq_lens: bool = True,
        needs_confidence_relay: bool = False,
    ) -> Any:
        return SpeculativeAlgorithm.create_future_map(
            self, device, req_to_token_pool, needs_cpu_seq_lens, needs_confidence_relay
        )

    def resolve_max_speculative_num_draft_tokens(self, server_args: Any) -> int | None:
        """SGLang reserves KV slots for so many tokens of a request and round; a tree's may be more than a chain's."""
        chain: int | None = super().resolve_max_speculative_num_draft_tokens(server_args)
        if chain is None:
            return None
        config = read_config(resolving_view(server_args).speculative_adaptive_config)
        return max(chain, *tree_sizes(config, chain - 1), 0)

    def handle_server_args(self, server_args: Any) -> None:
        """Refuse what cannot be, and settle what was left open. Assignments become SGLang's declared resolutions."""
        config = read_config(server_args.speculative_adaptive_config)
        refuse(server_args, NAME, UNSUPPORTED)
        if server_args.speculative_eagle_topk not in (None, 1):
            raise LaunchError(
                f"speckv: {NAME} drafts one spine and chooses what branches off; leave --speculative-eagle-topk out"
            )
        steps = ceiling(config, server_args.speculative_num_steps)
        load_controller(config)
        check_pair(server_args)
        for name, value in settled(server_args, steps).items():
            setattr(server_args, name, value)
        if server_args.max_running_requests is None:
            server_args.max_running_requests = 48  # as SGLang does for its own speculation
        if server_args.device == "cpu" and not server_args.disable_overlap_schedule:
            server_args.disable_overlap_schedule = True
            logger.warning("speckv: scheduling is not overlapped: SGLang has that for no speculation on a CPU")


def validate(server_args: Any) -> None:
    """What must be said on the command line."""
    if server_args.speculative_draft_model_path is None:
        raise LaunchError(f"speckv: {NAME} needs --speculative-draft-model-path, a small model of the same tokenizer")


def make_worker(server_args: Any) -> type:
    """The worker's class, imported only where it is needed."""
    from speckv.integrations.sglang.worker import SpecKVWorker

    return SpecKVWorker

"""A separate draft model: rests while it does not pay, and catches up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sglang.srt.speculative.eagle_info import EagleDraftInput
from sglang.srt.speculative.standalone_worker_v2 import StandaloneDraftWorker
from torch import Tensor

from speckv.integrations.sglang.draft_cache import DraftCache
from speckv.integrations.sglang.resting import RestingDrafter


class SpecKVDraftWorker(RestingDrafter, StandaloneDraftWorker):
    """SGLang's standalone draft worker with decisions."""

    cache: DraftCache

    def alloc_memory_pool(
        self, memory_pool_config: Any = None, req_to_token_pool: Any = None, token_to_kv_pool_allocator: Any = None
    ) -> None:
        super().alloc_memory_pool(memory_pool_config, req_to_token_pool, token_to_kv_pool_allocator)
        # Slot 0 is padding, and pages are handed out whole.
        slots = token_to_kv_pool_allocator.size + token_to_kv_pool_allocator.page_size + 1
        self.cache = DraftCache(slots, self.device)

    def _missed(self, batch: Any, batch_result: Any) -> None:
        served = self.decisions.served(batch.reqs)
        self.cache.missed(batch.out_cache_loc, served, [one.stale + 1 for one in served])

    def _draft_extend_for_prefill(
        self,
        batch: Any,
        target_hidden_states: Any,
        next_token_ids: Tensor,
        mm_input_embeds: Any = None,
        kv_loc_plan: Any = None,
    ) -> Any:
        """The draft reads the prompt, unless it rests or would build upon something stale: then it catches up later."""
        prefixes = batch.prefix_lens
        starts = self.cache.starts(batch.req_to_token_pool.req_to_token, batch.req_pool_indices, prefixes)
        if starts != list(prefixes) or not self.decisions.prefill(len(batch.reqs), sum(batch.extend_lens)):
            spans = zip(prefixes, starts, batch.extend_lens, strict=True)
            # Of an earlier chunk and of what was retracted too, which were counted before.
            stale = [prefix - start + count for prefix, start, count in spans]
            self.cache.missed(batch.out_cache_loc, self.decisions.served(batch.reqs), stale)
            size = len(batch.reqs)
            return EagleDraftInput(
                topk_p=torch.zeros((size, self.topk), dtype=torch.float32, device=self.device),
                topk_index=torch.zeros((size, self.topk), dtype=torch.int64, device=self.device),
                bonus_tokens=next_token_ids,
                num_tokens_per_req=1,
                num_tokens_for_logprob_per_req=1,
            )
        return super()._draft_extend_for_prefill(
            batch, target_hidden_states, next_token_ids, mm_input_embeds, kv_loc_plan
        )

    def _missing(self, batch: Any, lengths: Sequence[int]) -> tuple[list[int], None]:
        starts = self.cache.starts(batch.req_to_token_pool.req_to_token, batch.req_pool_indices, lengths)
        return [min(start, length - 1) for start, length in zip(starts, lengths, strict=True)], None

    def _wrote(self, batch: Any, draft_input: Any, seen: list[Any]) -> None:
        self.cache.wrote(batch.out_cache_loc, self.decisions.served(batch.reqs))
        super()._wrote(batch, draft_input, seen)

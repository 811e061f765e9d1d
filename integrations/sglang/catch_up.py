"""A decode batch, for a while, as the prefill of what the draft missed of its requests."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from sglang.srt.model_executor.forward_batch_info import ForwardMode

FIELDS = (
    "forward_mode",
    "input_ids",
    "out_cache_loc",
    "prefix_lens",
    "extend_lens",
    "extend_num_tokens",
    "extend_logprob_start_lens",
    "chunked_req_next_prompt_token",
    "return_logprob",
    "spec_info",
)
"""Of the batch, what is set and put back."""


@contextmanager
def as_prefill(batch: Any, starts: Sequence[int], ends: Sequence[int]) -> Iterator[int]:
    """``batch`` with the tokens ``start`` … ``end`` − 1 of every request to be processed; gives how many these are.

    They come from the requests. With overlapped scheduling the host does not know the last one yet, which SGLang takes
    from the device.
    """
    spans = list(zip(starts, ends, strict=True))
    saved = {name: getattr(batch, name) for name in FIELDS}
    fed = [token for request, span in zip(batch.reqs, spans, strict=True) for token in _tokens(request, *span)]
    table = batch.req_to_token_pool.req_to_token
    batch.forward_mode = ForwardMode.EXTEND
    batch.input_ids = torch.tensor(fed, dtype=torch.int64, device=table.device)
    batch.out_cache_loc = torch.cat(
        [table[row, start:end] for row, (start, end) in zip(batch.req_pool_indices, spans, strict=True)]
    ).long()
    batch.prefix_lens = list(starts)
    batch.extend_lens = batch.extend_logprob_start_lens = [end - start for start, end in spans]
    batch.extend_num_tokens = len(fed)
    batch.chunked_req_next_prompt_token = None
    batch.return_logprob = False
    try:
        yield len(fed)
    finally:
        for name, value in saved.items():
            setattr(batch, name, value)


def _tokens(request: Any, start: int, end: int) -> list[int]:
    """Tokens ``start`` … ``end`` − 1 of a request's prompt and output."""
    prompt = request.origin_input_ids
    both = array("q", prompt[start:end])
    both.extend(request.output_ids[max(0, start - len(prompt)) : max(0, end - len(prompt))])
    return both.tolist()

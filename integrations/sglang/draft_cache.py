"""Which slots of the KV cache hold what the draft would have computed, so that it may rest and catch up later.

Target and draft share slot numbers: SGLang has one allocator for both. A round without drafting leaves the slots it
commits without draft KV, and so does a prompt that the draft did not read. A slot may be inherited through the radix
cache, so freshness belongs to the slot, not to the request. What a stale slot costs is acceptance, never a token:
the target verifies everything.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speckv.controller.policy import Request


class DraftCache:
    """Freshness of ``slots`` KV slots on ``device``, and on the host how many tokens of each request are stale."""

    def __init__(self, slots: int, device: str) -> None:
        self._fresh = torch.zeros(slots, dtype=torch.bool, device=device)
        self._anything_missed = False

    def wrote(self, slots: Tensor, requests: Sequence[Request]) -> None:
        """The draft has processed these slots, and so all of each request."""
        self._fresh[slots] = True
        for request in requests:
            request.stale = 0

    def missed(self, slots: Tensor, requests: Sequence[Request], stale: Sequence[int]) -> None:
        """The target has processed ``slots``, and the draft has not: so many tokens of each request are stale now."""
        self._anything_missed = True
        self._fresh[slots] = False
        for request, count in zip(requests, stale, strict=True):
            request.stale = count

    def starts(self, req_to_token: Tensor, rows: Tensor, lengths: Sequence[int]) -> list[int]:
        """Per request, the first of its ``lengths`` positions whose draft KV cannot be used, or its length.

        Whatever follows a stale slot was computed from it, so it counts as stale too. Reads the device.
        """
        if not self._anything_missed or not any(lengths):
            return list(lengths)
        limit = torch.tensor(lengths, device=self._fresh.device)
        fresh = self._fresh[req_to_token[rows, : max(lengths)].long()]
        inside = torch.arange(max(lengths), device=limit.device) < limit[:, None]
        leading = (fresh & inside).long().cumprod(-1).sum(-1)
        return [int(start) for start in leading.tolist()]

"""Which slots of the KV cache hold what the draft would have computed, so that it may rest and catch up later.

Target and draft share slot numbers: SGLang has one allocator for both. A round without drafting leaves the slots it
commits without draft KV, and so does a prompt that the draft did not read. A slot may be inherited through the radix
cache, so freshness belongs to the slot, not to the request. What a stale slot costs is acceptance, never a token:
the target verifies everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor


class DraftCache:
    """Freshness of ``slots`` KV slots on ``device``, and how many rows each request is behind (host side)."""

    def __init__(self, slots: int, device: str) -> None:
        self._fresh = torch.zeros(slots, dtype=torch.bool, device=device)
        self._anything_missed = False
        self._behind: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def wrote(self, slots: Tensor, requests: Sequence[Any]) -> None:
        """The draft has processed these slots, and so all of each request."""
        self._fresh[slots] = True
        for request in requests:
            self._behind.pop(request, None)

    def missed(self, slots: Tensor, requests: Sequence[Any], rows: Sequence[int]) -> None:
        """The target has processed ``slots``, ``rows`` of them per request, and the draft has not."""
        self._anything_missed = True
        self._fresh[slots] = False
        for request, count in zip(requests, rows, strict=True):
            self._behind[request] = self._behind.get(request, 0) + count

    def behind(self, requests: Sequence[Any]) -> int:
        """Rows that the draft would have to process to catch up with all ``requests``."""
        return sum(self._behind.get(request, 0) for request in requests)

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

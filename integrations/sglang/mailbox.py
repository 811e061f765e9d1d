"""The draft's signals on their way from the device to the host."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from speckv.controller.features import summarize
from speckv.controller.policies.batch import Summary
from speckv.integrations.signals import unpack

Signal = tuple[float, float]
"""Entropy (nats) and top-1 probability of one draft distribution."""


class Mailbox:
    """Takes packed signals where they are computed; delivers them per request when the host can have them.

    On a CPU, or with ``wait``, they are there at once. On a GPU whose draft loop is a captured graph they are
    copied behind the work that is queued, and a decision uses what has arrived: no synchronisation is added.
    """

    def __init__(self, wait: bool) -> None:
        self.wait = wait
        self.firsts: WeakKeyDictionary[Any, Signal] = WeakKeyDictionary()
        self.previous: WeakKeyDictionary[Any, Summary] = WeakKeyDictionary()
        self._way: deque[tuple[bool, Sequence[Any], Tensor, Any]] = deque()

    def send_first(self, requests: Sequence[Any], packed: Tensor) -> None:
        """``packed`` (B, 1, 3): ``signals.pack`` of the first draft token of each request's next round."""
        self._send(True, requests, packed)

    def send_rest(self, requests: Sequence[Any], packed: Tensor) -> None:
        """``packed`` (B, steps, 3): of the further draft tokens of the round that those first ones began."""
        self._send(False, requests, packed)

    def collect(self) -> None:
        """Deliver what has arrived; with ``wait`` everything."""
        while self._way and (self.wait or self._way[0][3].query()):
            first, requests, host, event = self._way.popleft()
            event.synchronize()
            self._deliver(first, requests, host)

    def _send(self, first: bool, requests: Sequence[Any], packed: Tensor) -> None:
        if not packed.is_cuda:
            self._deliver(first, requests, packed)
            return
        host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        host.copy_(packed, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._way.append((first, requests, host, event))

    def _deliver(self, first: bool, requests: Sequence[Any], packed: Tensor) -> None:
        for request, rows in zip(requests, packed.tolist(), strict=True):
            signals = [unpack(row)[1:] for row in rows]
            if first:
                self.firsts[request] = signals[0]
            else:
                signals.insert(0, self.firsts.get(request, signals[0]))
                self.previous[request] = summarize(*zip(*signals, strict=True))

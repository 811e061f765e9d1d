"""The draft's signals on their way from the device to the host."""

from __future__ import annotations

import torch
from torch import Tensor

from speckv.controller.policy import Level
from speckv.integrations.signals import LEVEL


class Letter:
    """Signals of a batch, posted where they are computed, behind what is queued there: posting waits for nothing.

    ``packed`` (…, WIDTH) is what ``signals.pack`` gives.
    """

    def __init__(self, packed: Tensor) -> None:
        self._host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=packed.is_cuda)
        self._host.copy_(packed, non_blocking=True)
        self._arrival = None
        if packed.is_cuda:
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def read(self) -> Level:
        """The signals (…, 1 + BEST), waited for until the device has computed them."""
        if self._arrival is not None:
            self._arrival.synchronize()
        signals: Level = self._host[..., LEVEL].numpy()
        return signals

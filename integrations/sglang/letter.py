"""Tensors on their way from the device to the host."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


class Letter:
    """``content``, posted where it is computed, behind what is queued there: posting waits for nothing."""

    def __init__(self, content: Tensor) -> None:
        self._host = torch.empty(content.shape, dtype=content.dtype, pin_memory=content.is_cuda)
        self._host.copy_(content, non_blocking=True)
        self._arrival = None
        if content.is_cuda:
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def read(self) -> NDArray[Any]:
        """The content, waited for until the device has computed it."""
        if self._arrival is not None:
            self._arrival.synchronize()
        content: NDArray[Any] = self._host.numpy()
        return content

"""Between the host and the device: what is sent is sent without waiting; :func:`read` alone waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def sent(values: Any, device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """``values``, integers in lists or an array of numpy, which keeps its type, on ``device``.

    A copy from memory that is not pinned would wait for all that the device was told before.
    """
    made = torch.from_numpy(values) if isinstance(values, np.ndarray) else torch.tensor(values, dtype=dtype)
    if device.type != "cuda":
        return made.to(device)
    return made.pin_memory().to(device, non_blocking=True)


def read(asked: Sequence[Tensor]) -> list[list[int]]:
    """The numbers of all these tensors (k,), in one read."""
    if len(asked) == 1:
        return [asked[0].tolist()]
    numbers = iter(torch.cat(list(asked)).tolist())
    return [[next(numbers) for _ in range(len(one))] for one in asked]


def draw(weights: Tensor) -> Tensor:
    """An index (n, 1) for each row of ``weights`` (n, V), not all 0, drawn in proportion to them.

    As ``torch.multinomial`` draws one, by an exponential race, without its checks, each of which waits for the device.
    """
    return (weights / torch.empty_like(weights).exponential_()).argmax(-1, keepdim=True)

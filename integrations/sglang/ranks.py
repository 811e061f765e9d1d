"""Under tensor parallelism all ranks take rank 0's decision, or they would wait for each other for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from torch import Tensor


class Ranks:
    """The tensor-parallel group as far as decisions go; ``group`` is SGLang's group coordinator, None for one rank.

    A number travels over the group's CPU (gloo) side, so the device is neither read nor waited for.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = None if group is None or group.world_size == 1 else group

    @property
    def decides(self) -> bool:
        """Whether this is the rank that decides."""
        return self._group is None or bool(self._group.rank_in_group == 0)

    def agree(self, decide: Callable[[], int]) -> int:
        """What ``decide`` gives on rank 0, which is the only one to call it."""
        if self._group is None:
            return decide()
        box = torch.tensor([decide() if self.decides else 0])
        torch.distributed.broadcast(box, src=self._group.ranks[0], group=self._group.cpu_group)
        return int(box)

    def same(self, values: Tensor) -> Tensor:
        """Rank 0's ``values`` on every rank, on their device: what each computes may differ in its last bits."""
        if self._group is not None:
            self._group.broadcast(values, src=0)
        return values

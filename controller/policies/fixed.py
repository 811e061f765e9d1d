"""The policy almost everyone runs today: one γ, set by hand."""

from __future__ import annotations

from speckv.controller.errors import SpecKVError
from speckv.controller.policy import Policy, Round


class FixedPolicy(Policy):
    """Always draft ``gamma`` tokens (``gamma`` ≥ 0), and no siblings."""

    asks = False

    def __init__(self, gamma: int) -> None:
        if gamma < 0:
            raise SpecKVError(f"gamma {gamma}: must be 0 or more")
        self.gamma = gamma

    def begin(self, this: Round, room: int) -> int:
        return min(self.gamma, room)

    def prefill(self, size: int, requests: int, tokens: int) -> bool:
        return self.gamma > 0

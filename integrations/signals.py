"""The draft's signals, computed where its logits are: entropy and top-1 probability of every distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EXP_UNDERFLOWS = -1e4
"""exp of this is 0 in float32; stands in for −∞, whose product with that 0 would be NaN."""


def pack(tokens: Tensor, logits: Tensor) -> Tensor:
    """Token ids and what holds the signals, as one float32 tensor (B, 3): the host needs a single read.

    ``tokens``: (B, 1) ids below 2²⁴, which float32 holds exactly. ``logits``: (B, V), any floating dtype, raw (before
    processors, temperature 1), on any device; −∞ marks masked vocabulary. The columns are the token, Σ p·ln p and the
    largest ln p; :func:`unpack` makes the signals of them. A row without a finite logit, or with NaN or +∞, gives NaN.
    """
    logs = logits.float().log_softmax(-1).clamp_(min=EXP_UNDERFLOWS)
    moment = torch.linalg.vecdot(logs.exp(), logs)[:, None]
    return torch.cat((tokens, moment, logs.amax(-1, keepdim=True)), dim=-1)


def unpack(row: list[float]) -> tuple[int, float, float]:
    """(token, entropy in nats, top-1 probability) of one row of :func:`pack` after it was read by the host.

    Two scalars a token: cheaper here than as device kernels.
    """
    token, moment, top = row
    return int(token), -moment, math.exp(top)

"""The draft's signals, computed where its logits are: entropy and top-1 probability of every distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EXP_UNDERFLOWS = -1e4
"""exp of this is 0 in float32; stands in for −∞, whose product with that 0 would be NaN."""


def pack(tokens: Tensor, logits: Tensor) -> Tensor:
    """Token ids and two sums that hold the signals, as one float32 tensor (B, 3): the host needs a single read.

    ``tokens``: (B, 1) ids below 2²⁴, which float32 holds exactly. ``logits``: (B, V), any floating dtype, raw (before
    processors, temperature 1), on any device; −∞ marks masked vocabulary. With m = max l and x = l − m the columns
    are token, Σ eˣ and Σ eˣ·x; :func:`unpack` makes the signals of them. A row without a finite logit, or with NaN
    or +∞, gives NaN.
    """
    shifted = logits.float()
    shifted = (shifted - shifted.amax(-1, keepdim=True)).clamp_(min=EXP_UNDERFLOWS)
    weights = shifted.exp()
    moment = torch.linalg.vecdot(weights, shifted)[:, None]
    return torch.cat((tokens.float(), weights.sum(-1, keepdim=True), moment), dim=-1)


def unpack(row: list[float]) -> tuple[int, float, float]:
    """(token, entropy in nats, top-1 probability) of one row of :func:`pack` after it was read by the host.

    z = Σ eˣ:  H = ln z − Σ eˣ·x / z  and  p₁ = 1 / z. Three scalars a token: cheaper here than as device kernels.
    """
    token, total, moment = row
    if not total > 0:  # NaN: no signal could be had
        return int(token), math.nan, math.nan
    return int(token), math.log(total) - moment / total, 1.0 / total

"""The draft's signals, computed where its logits are: entropy and top-1 probability of every distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(tokens: Tensor, logits: Tensor) -> Tensor:
    """Token ids, entropies (nats) and top-1 probabilities as one float32 tensor (B, 3): the host needs a single read.

    ``tokens``: (B, 1) ids below 2²⁴, which float32 holds exactly. ``logits``: (B, V), any floating dtype, raw (before
    processors, temperature 1), on any device; −∞ marks masked vocabulary. A row without a finite logit, or with NaN
    or +∞, gives NaN.
    """
    p = logits.float().softmax(-1)
    entropies = torch.special.entr(p).sum(-1, keepdim=True)
    return torch.cat((tokens.float(), entropies, p.amax(-1, keepdim=True)), dim=-1)


def unpack(row: list[float]) -> tuple[int, float, float]:
    """(token, entropy in nats, top-1 probability) of one row of :func:`pack` after it was read by the host."""
    token, entropy, confidence = row
    return int(token), entropy, confidence

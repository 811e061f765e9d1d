"""The draft's signals, computed where its logits are: entropy and the best probabilities of every distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from speckv.controller.policy import BEST


def pack(tokens: Tensor | None, logits: Tensor) -> Tensor:
    """Token ids, a ``Level`` of the policy, and candidates, as one float32 tensor (B, WIDTH): one read for the host.

    A level is the entropy (nats) and the BEST largest probabilities, descending; the candidates are the ids of these.
    Where the vocabulary is smaller, probabilities are 0 and ids −1. ``tokens``: (B, 1) ids below 2²⁴, which float32
    holds exactly; None stands for the most probable of each row. ``logits``: (B, V), any floating dtype, raw (before
    processors, temperature 1), on any device; −∞ marks masked vocabulary. A row without a finite logit, or with NaN or
    +∞, gives NaN.
    """
    p = logits.float().softmax(-1)
    entropies = torch.special.entr(p).sum(-1, keepdim=True)
    best = p.topk(min(BEST, p.shape[-1]))
    found, ids = best.values, best.indices.float()
    if (absent := BEST - found.shape[-1]) > 0:
        found = torch.nn.functional.pad(found, (0, absent))
        ids = torch.nn.functional.pad(ids, (0, absent), value=-1.0)
    drafted = ids[:, :1] if tokens is None else tokens.float()
    return torch.cat((drafted, entropies, found, ids), dim=-1)


LEVEL, CANDIDATES = slice(1, 2 + BEST), slice(2 + BEST, 2 + 2 * BEST)
"""Columns of what :func:`pack` returns, after that of the token."""

WIDTH = CANDIDATES.stop

"""The draft's signals, computed where its logits are: entropy and the best probabilities of every distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from speckv.controller.policy import BEST


def pack(tokens: Tensor, logits: Tensor) -> Tensor:
    """Token ids, then a ``Level`` of the policy, as one float32 tensor (B, 2 + BEST): the host needs a single read.

    That is the entropy (nats) and the BEST largest probabilities, descending; zeros where the vocabulary is smaller.
    ``tokens``: (B, 1) ids below 2²⁴, which float32 holds exactly. ``logits``: (B, V), any floating dtype, raw (before
    processors, temperature 1), on any device; −∞ marks masked vocabulary. A row without a finite logit, or with NaN
    or +∞, gives NaN.
    """
    p = logits.float().softmax(-1)
    entropies = torch.special.entr(p).sum(-1, keepdim=True)
    best = p.topk(min(BEST, p.shape[-1])).values
    if (absent := BEST - best.shape[-1]) > 0:
        best = torch.nn.functional.pad(best, (0, absent))
    return torch.cat((tokens.float(), entropies, best), dim=-1)

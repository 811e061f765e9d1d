"""The draft's signals, computed where its logits are: entropy and top-1 probability of every distribution."""

from __future__ import annotations

import torch
from torch import Tensor

EXP_UNDERFLOWS = -1e4
"""exp of this is 0 in float32; stands in for −∞, whose product with that 0 would be NaN."""


def signals(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy (nats) and top-1 probability of softmax(``logits``) at temperature 1.

    ``logits``: (..., V), any floating dtype, raw (before processors); −∞ marks masked vocabulary. Both results are
    float32 of shape (...), on the logits' device. A row without a finite logit, or with NaN or +∞, gives NaN.

    With m = max l, x = l − m, z = Σ eˣ:  H = ln z − Σ eˣ·x / z  and  p₁ = 1 / z.
    """
    shifted = logits.float()
    shifted = (shifted - shifted.amax(-1, keepdim=True)).clamp_(min=EXP_UNDERFLOWS)
    weights = shifted.exp()
    total = weights.sum(-1)
    return total.log() - torch.linalg.vecdot(weights, shifted) / total, total.reciprocal()


def pack(tokens: Tensor, logits: Tensor) -> Tensor:
    """Token ids and signals as one float32 tensor (B, 3), so that the host fetches all in a single read.

    ``tokens``: (B,) or (B, 1) ids below 2²⁴, which float32 holds exactly; ``logits``: (B, V).
    """
    entropy, confidence = signals(logits)
    return torch.stack((tokens.reshape(-1).float(), entropy, confidence), dim=-1)

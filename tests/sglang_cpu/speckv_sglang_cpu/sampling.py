"""Verification by real sampling on a CPU, where SGLang would commit the argmax whatever the temperature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def softmax(logits: Tensor, temperatures: Tensor | None = None, **unused: Any) -> Tensor:
    scaled = logits.float() if temperatures is None else logits.float() / temperatures
    return torch.softmax(scaled, dim=-1)


def top_k_renorm(probabilities: Tensor, top_ks: Tensor) -> Tensor:
    ordered = probabilities.sort(dim=-1, descending=True).values
    last = ordered.gather(-1, (top_ks.long().clamp(1, probabilities.shape[-1]) - 1)[:, None])
    kept = torch.where(probabilities >= last, probabilities, 0.0)
    return kept / kept.sum(-1, keepdim=True)


def top_p_renorm(probabilities: Tensor, top_ps: Tensor) -> Tensor:
    ordered, index = probabilities.sort(dim=-1, descending=True)
    inside = ordered.cumsum(-1) - ordered < top_ps[:, None]
    kept = torch.zeros_like(probabilities).scatter(-1, index, torch.where(inside, ordered, 0.0))
    return kept / kept.sum(-1, keepdim=True)


def verify_chain(
    predicts: Tensor,
    accept_index: Tensor,
    accept_token_num: Tensor,
    candidates: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    uniform_samples: Tensor,
    uniform_samples_for_final_sampling: Tensor,
    target_probs: Tensor,
    draft_probs: Tensor,
    threshold_single: float = 1.0,
    threshold_acc: float = 1.0,
    deterministic: bool = True,
) -> None:
    """Accept a drafted argmax x with probability p(x), else draw from p without x: exact for a point-mass proposal."""
    for row in range(candidates.shape[0]):
        last, accepted, refused = int(retrive_index[row, 0]), 0, None
        accept_index[row, 0] = last
        for step in range(1, candidates.shape[1]):
            token = int(candidates[row, step])
            probability = float(target_probs[row, step - 1, token])
            if float(uniform_samples[row, step]) >= probability / threshold_acc and probability < threshold_single:
                refused = token
                break
            predicts[last] = token
            last = int(retrive_index[row, step])
            accepted = step
            accept_index[row, step] = last
        rest = target_probs[row, accepted].clone()
        if refused is not None:
            rest[refused] = 0
        cumulated = rest.cumsum(0)
        drawn = float(uniform_samples_for_final_sampling[row]) * float(cumulated[-1])
        predicts[last] = min(int(torch.searchsorted(cumulated, drawn, right=True)), rest.numel() - 1)
        accept_token_num[row] = accepted


def register() -> None:
    from sglang.srt.utils import is_cpu

    if not is_cpu():
        return
    from sglang.srt.speculative import eagle_utils

    eagle_utils._verify_uses_greedy = lambda *, is_all_greedy, **unused: is_all_greedy
    eagle_utils.sampling_softmax = softmax
    eagle_utils.top_k_renorm_prob, eagle_utils.top_p_renorm_prob = top_k_renorm, top_p_renorm
    eagle_utils.tree_speculative_sampling_target_only = verify_chain

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


def verify_tree(
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
    """By SGLang's rule for ``draft_probs`` of zeros: one coin a level, against the children's probabilities added up.

    That accepts each child with its probability p, and where none is accepted draws from p without all of them.
    """
    children, siblings = retrive_next_token.tolist(), retrive_next_sibling.tolist()
    for row in range(candidates.shape[0]):
        node = accepted = 0
        while True:
            here = retrive_index[row, node]
            accept_index[row, accepted] = here
            rest, passed = target_probs[row, node].clone(), 0.0
            child = children[row][node] if accepted + 1 < accept_index.shape[1] else -1
            while child != -1:
                token = int(candidates[row, child])
                probability = float(target_probs[row, node, token])
                passed += probability
                if float(uniform_samples[row, node]) < passed / threshold_acc or probability >= threshold_single:
                    break
                rest[token] = 0
                child = siblings[row][child]
            if child == -1:
                break
            predicts[here] = candidates[row, child]
            node, accepted = child, accepted + 1
        cumulated = rest.cumsum(0)
        drawn = float(uniform_samples_for_final_sampling[row]) * float(cumulated[-1])
        predicts[here] = min(int(torch.searchsorted(cumulated, drawn, right=True)), rest.numel() - 1)
        accept_token_num[row] = accepted


def register() -> None:
    from sglang.srt.utils import is_cpu

    if not is_cpu():
        return
    from sglang.srt.speculative import eagle_utils

    eagle_utils._verify_uses_greedy = lambda *, is_all_greedy, **unused: is_all_greedy
    eagle_utils.sampling_softmax = softmax
    eagle_utils.top_k_renorm_prob, eagle_utils.top_p_renorm_prob = top_k_renorm, top_p_renorm
    eagle_utils.tree_speculative_sampling_target_only = verify_tree

"""Plain-torch stand-in for the compiled CPU kernels that SGLang imports as ``sgl_kernel``.

It has what a dense model runs whose draft proposes a chain (top-k 1); the verify may be of any tree. Every other name
can be imported and raises when called. Names and arguments are SGLang's (0.5.23), its spelling included.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

__version__ = "0.0.0+torch"


def assign_req_to_token_pool_cpu(
    rows: Tensor, req_to_token: Tensor, start: Tensor, end: Tensor, slots: Tensor, pool_len: Any = None
) -> None:
    """``req_to_token[row, start:end]`` of each row takes the next of ``slots``."""
    taken = 0
    for row, first, last in zip(rows.tolist(), start.tolist(), end.tolist(), strict=True):
        req_to_token[row, first:last] = slots[taken : taken + last - first].to(req_to_token.dtype)
        taken += last - first


def assign_extend_cache_locs_cpu(
    rows: Tensor, req_to_token: Tensor, start: Tensor, end: Tensor, slots: Tensor, pool_len: Any = None
) -> None:
    """The inverse: ``slots`` are read from ``req_to_token[row, start:end]``."""
    taken = 0
    for row, first, last in zip(rows.tolist(), start.tolist(), end.tolist(), strict=True):
        slots[taken : taken + last - first] = req_to_token[row, first:last].to(slots.dtype)
        taken += last - first


def assign_draft_cache_locs_contiguous_cpu(
    rows: Tensor, req_to_token: Tensor, seq_lens: Tensor, slots: Tensor, pool_len: Any, topk: int, steps: int
) -> None:
    count = topk * steps
    for i, (row, length) in enumerate(zip(rows.tolist(), seq_lens.tolist(), strict=True)):
        slots[i * count : (i + 1) * count] = req_to_token[row, length : length + count].to(slots.dtype)


def copy_all_layer_kv_cache_cpu(pointers: Tensor, strides: Tensor, target: Tensor, source: Tensor) -> None:
    """Move rows of every layer's buffer, which come as raw addresses and row sizes in bytes."""
    for address, size in zip(pointers.tolist(), strides.tolist(), strict=True):
        rows = [ctypes.string_at(address + slot * size, size) for slot in source.tolist()]
        for slot, content in zip(target.tolist(), rows, strict=True):
            ctypes.memmove(address + slot * size, content, size)


def build_tree_kernel_efficient_cpu(
    parent_list: Tensor,
    selected_index: Tensor,
    verified_seq_len: Tensor,
    tree_mask: Tensor | None,
    positions: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    topk: int,
    depth: int,
    draft_token_num: int,
    tree_mask_mode: int,
) -> None:
    if topk != 1:
        raise NotImplementedError("sgl_kernel stand-in: only chains (top-k 1)")
    batch, count = verified_seq_len.numel(), draft_token_num
    steps = torch.arange(count)
    retrive_index.view(batch, count).copy_(steps + torch.arange(batch)[:, None] * count)
    retrive_next_token.view(batch, count).copy_(torch.cat((steps[1:], torch.tensor([-1]))).expand(batch, count))
    retrive_next_sibling.fill_(-1)
    positions.view(batch, count).copy_(verified_seq_len.long()[:, None] + steps)
    if tree_mask is None:
        return
    lower = torch.tril(torch.ones(count, count, dtype=torch.bool))
    flat = tree_mask.view(-1)
    if int(tree_mask_mode) == 1:  # QLEN_ONLY
        flat[: batch * count * count].view(batch, count, count).copy_(lower.expand(batch, count, count))
    elif int(tree_mask_mode) == 0:  # FULL_MASK: rows of (length + count) per draft token
        offset = 0
        for length in verified_seq_len.tolist():
            block = flat[offset : offset + count * (length + count)].view(count, length + count)
            block[:, :length] = True
            block[:, length:] = lower
            offset += block.numel()
    else:
        raise NotImplementedError("sgl_kernel stand-in: bit-packed tree mask")


def verify_tree_greedy_cpu(
    predicts: Tensor,
    accept_index: Tensor,
    accept_token_num: Tensor,
    candidates: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    target_predict: Tensor,
) -> None:
    """Follow the target's argmax down each tree while a child has it; the first three arguments are outputs."""
    drafts, nodes = candidates.tolist(), retrive_index.tolist()
    children, siblings = retrive_next_token.tolist(), retrive_next_sibling.tolist()
    wanted = target_predict.reshape(-1).tolist()
    for row in range(candidates.shape[0]):
        node = accepted = 0
        while True:
            here = nodes[row][node]
            accept_index[row, accepted], predicts[here] = here, wanted[here]
            child = children[row][node]
            while child != -1 and drafts[row][child] != wanted[here]:
                child = siblings[row][child]
            if child == -1 or accepted + 1 == accept_index.shape[1]:
                break
            node, accepted = child, accepted + 1
        accept_token_num[row] = accepted


def fill_bonus_tokens_cpu(accept_tokens: Tensor, accept_lens: Tensor, bonus_tokens: Tensor, stride: int) -> None:
    index = torch.arange(accept_lens.numel()) * stride + accept_lens.long() - 1
    bonus_tokens.copy_(accept_tokens.view(-1)[index].to(bonus_tokens.dtype))


def fill_accept_out_cache_loc_cpu(accept_index: Tensor, slots: Tensor, accepted_slots: Tensor) -> None:
    flat = accept_index.view(-1)
    source = flat[flat > -1].long()
    accepted_slots[: source.numel()] = slots[source]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"sgl_kernel stand-in: {name}")

    missing.__name__ = name
    return missing

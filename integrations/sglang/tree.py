"""The verify's input of a tree, a drafted spine with siblings beside it, built on the device, where the signals are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from sglang.srt.speculative.eagle_info import EagleVerifyInput
from sglang.srt.speculative.eagle_utils import TreeMaskMode, default_tree_mask_mode
from torch import Tensor

from speckv.controller.policy import SIBLINGS
from speckv.integrations.signals import CANDIDATES, LEVEL

AS_TREE = {"topk": 2, "prepared_out_cache_loc": None, "kv_loc_plan": None, "num_tokens_per_req": -1}
"""What SGLang is told of a tree: with topk 1 it would leave what was accepted where it is; no chain's plan holds."""


def best_siblings(levels: Tensor, count: int) -> Tensor:
    """The ``count`` most valuable siblings of every request, in the order of their depths.

    ``levels`` (n, γ, WIDTH) are as ``pack`` gives them. Returned are places (n, count), depth · SIBLINGS + rank − 1,
    and γ · SIBLINGS where a request has no more candidates. A sibling's value is ``controller.tree.sibling_values``'.
    """
    best = levels[..., LEVEL][..., 1:]
    reach = torch.cat((torch.ones_like(best[:, :1, 0]), best[:, :-1, 0]), dim=1).cumprod(1)
    values = (reach[..., None] * best[..., 1:]).masked_fill(others(levels) < 0, -1.0).flatten(1)
    top = values.topk(count)
    places = torch.where(top.values >= 0, top.indices, values.shape[1])
    return places.sort(dim=1).values


def tree_input(
    chain: EagleVerifyInput, levels: Tensor, places: Tensor, lengths: Tensor, longest: int, backend: Any
) -> EagleVerifyInput:
    """``chain``, γ + 1 tokens a request, with the siblings at ``places`` (n, K) of ``levels`` (n, γ, WIDTH) after it.

    ``lengths`` (n,) are the tokens before, at most ``longest``, and ``backend`` is to verify N = γ + 1 + K tokens of
    each. A sibling that is not there is a token which nothing leads to.
    """
    (n, gamma), device = levels.shape[:2], levels.device
    depths = places // SIBLINGS  # of the token that each follows
    candidates = torch.nn.functional.pad(others(levels).flatten(1), (0, 1))
    tokens = torch.cat((chain.draft_token.view(n, gamma + 1), candidates.gather(1, places).long()), dim=1)
    size = tokens.shape[1]

    follow = torch.arange(1, gamma + 1, device=device)
    beside = depths[:, None, :] == follow[:, None] - 1  # (n, γ, K), by depth of the spine
    first = torch.where(beside.any(2), gamma + 1 + beside.int().argmax(2), -1)
    alike = (depths[:, 1:] == depths[:, :-1]) & (depths[:, 1:] < gamma)
    next_one = torch.where(alike, torch.arange(gamma + 2, size, device=device), -1)
    none = torch.full((n, 1), -1, device=device)
    siblings = torch.cat((none, first, next_one, none), dim=1)
    children = torch.full((n, size), -1, device=device)
    children[:, :gamma] = follow

    rows = torch.arange(gamma + 1, device=device)
    sees = torch.zeros((n, size, size), dtype=torch.bool, device=device)
    sees[:, : gamma + 1, : gamma + 1] = rows[:, None] >= rows
    sees[:, gamma + 1 :, : gamma + 1] = depths[..., None] >= rows
    sees |= torch.eye(size, dtype=torch.bool, device=device)
    positions = lengths.long()[:, None] + torch.cat((rows.expand(n, -1), depths + 1), dim=1)
    return replace(
        chain,
        draft_token=tokens.flatten(),
        custom_mask=_mask(sees, lengths.long(), longest, backend),
        positions=positions.flatten(),
        retrieve_index=torch.arange(n * size, device=device).view(n, size),
        retrieve_next_token=children,
        retrieve_next_sibling=siblings,
        spec_steps=gamma,
        draft_token_num=size,
        **AS_TREE,
    )


def bare(tree: EagleVerifyInput, requests: list[int]) -> EagleVerifyInput:
    """``tree`` with nothing to accept of some ``requests``: no token of theirs leads to another.

    A chain's kernel would not look where tokens lead, so it is said to be a tree.
    """
    children = tree.retrieve_next_token.clone()
    children[requests, 0] = -1
    return replace(tree, retrieve_next_token=children, **AS_TREE)


def others(levels: Tensor) -> Tensor:
    """The candidates beside the drafted token, (n, γ, SIBLINGS), −1 where the draft has no other or none is known."""
    candidates = levels[..., CANDIDATES][..., 1:]
    return torch.where((candidates >= 0) & (candidates != levels[..., :1]), candidates, -1.0)


def _mask(sees: Tensor, lengths: Tensor, longest: int, backend: Any) -> Tensor:
    """``sees`` (n, N, N) as ``backend`` reads it: with or without the columns of what comes before."""
    own, (n, size, _) = backend.verify_mask, sees.shape
    buffer: Tensor | None = own.buffer if own is not None and own.fits(n) else None
    mode = own.mode if own is not None else default_tree_mask_mode()
    if mode == TreeMaskMode.QLEN_ONLY:
        if buffer is None:
            return sees.flatten()
        buffer[: sees.numel()] = sees.flatten()
        return buffer
    if buffer is None:
        buffer = torch.empty(n * size * (longest + size), dtype=torch.bool, device=sees.device)
    buffer.fill_(1)
    columns = lengths + size
    ends = (size * columns).cumsum(0)
    starts = (ends - size * columns)[:, None] + torch.arange(size, device=sees.device) * columns[:, None]
    at = (starts + lengths[:, None])[..., None] + torch.arange(size, device=sees.device)
    buffer[at.flatten()] = sees.flatten().to(buffer.dtype)
    return buffer

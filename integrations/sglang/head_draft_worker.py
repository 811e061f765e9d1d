"""A head of the target as the draft: EAGLE, EAGLE-3, and the one layer of multi-token prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from speckv.integrations.sglang.resting import RestingDrafter

MOST_MISSED = 32
"""Tokens of a request after which a head catches up, whether or not it then drafts: one forward in so many rounds."""


class HeadDraftWorker(RestingDrafter):
    """SGLang's worker for heads with decisions.

    A head builds upon the target's hidden states, which are there when the target has just processed a token and never
    again. So it reads every prompt, and while it rests the states of what it misses are kept for it, MOST_MISSED rows a
    request. What a request said last before it ended may stay unread where the radix cache hands it on: that costs
    acceptance, never a token.
    """

    def overdue(self, requests: Sequence[Any]) -> bool:
        return any(served.stale >= MOST_MISSED for served in self.decisions.served(requests))

    def _missed(self, batch: Any, batch_result: Any) -> None:
        states = batch_result.logits_output.hidden_states.clone()  # a captured target writes the next ones there
        for row, served in enumerate(self.decisions.served(batch.reqs)):
            kept = served.states if served.stale else []
            served.states = [*kept, (states, row)]
            served.stale += 1

    def _missing(self, batch: Any, lengths: Sequence[int]) -> tuple[list[int], Tensor]:
        every = self.decisions.served(batch.reqs)
        starts = [length - len(served.states) for length, served in zip(lengths, every, strict=True)]
        return starts, torch.stack([states[row] for served in every for states, row in served.states])

    def _draft_extend_for_decode(self, batch: Any, batch_result: Any, **options: Any) -> None:
        super()._draft_extend_for_decode(batch, batch_result, **options)
        if not self.resting:
            size, states = len(batch.reqs), batch_result.logits_output.hidden_states
            rows = torch.arange(size, device=states.device)
            self._read_all(batch, states.view(size, -1, states.shape[-1])[rows, batch_result.accept_lens.long() - 1])

    def _draft_extend_for_prefill(self, batch: Any, target_hidden_states: Tensor, *args: Any, **options: Any) -> Any:
        ends = torch.tensor(batch.extend_lens, device=target_hidden_states.device).cumsum(0)
        draft_input = super()._draft_extend_for_prefill(batch, target_hidden_states, *args, **options)
        self._read_all(batch, target_hidden_states[ends - 1])
        return draft_input

    def _read_all(self, batch: Any, states: Tensor) -> None:
        """The head has processed all of the batch, the last of each request with ``states``, (n, target's width)."""
        for row, served in enumerate(self.decisions.served(batch.reqs)):
            served.states = [(states, row)]

    def _wrote(self, batch: Any, draft_input: Any, seen: list[Any]) -> None:
        for served in self.decisions.served(batch.reqs):
            served.stale = 0
            del served.states[:-1]
        super()._wrote(batch, draft_input, seen)

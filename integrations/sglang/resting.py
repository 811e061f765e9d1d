"""A draft that rests while it does not pay, and then catches up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sglang.srt.speculative.eagle_worker_v2 import EagleDraftWorker
from torch import Tensor

from speckv.integrations.sglang.catch_up import as_prefill
from speckv.integrations.sglang.drafter import Drafter

GIVEN = ("topk_p", "topk_index", "hidden_states", "dsa_topk_indices", "cuda_graph_compatible")
"""Of SGLang's draft input, what the draft's last forward gives."""


class RestingDrafter(Drafter):
    """``resting`` is whether the round is without it. What it misses is counted in each request's ``stale``."""

    resting = False

    def overdue(self, requests: Sequence[Any]) -> bool:
        """Whether it has to catch up with ``requests``, even if nothing is drafted."""
        return False

    def _missed(self, batch: Any, batch_result: Any) -> None:
        """The target has processed a token of every request, and it has not."""
        raise NotImplementedError

    def _missing(self, batch: Any, lengths: Sequence[int]) -> tuple[list[int], Tensor | None]:
        """The first token of each request that it has to process, of so many; and the target's states for a head.

        It is the last one where nothing was missed.
        """
        raise NotImplementedError

    def _draft_extend_for_decode(self, batch: Any, batch_result: Any, **options: Any) -> None:
        if self.resting:
            self.owner._stub_skipped_draft_extend(batch, batch_result)
            self._missed(batch, batch_result)
        else:
            super()._draft_extend_for_decode(batch, batch_result, **options)

    def _catch_up(self, batch: Any) -> None:
        """As one prefill of every request's missing end.

        A request that missed nothing processes its last token again, with the same result.
        """
        if not any(served.stale for served in self.decisions.served(batch.reqs)):
            return
        info = batch.spec_info
        known = batch.seq_lens if batch.seq_lens_cpu is None else batch.seq_lens_cpu
        lengths = [int(length) for length in known.tolist()]
        starts, states = self._missing(batch, lengths)
        with as_prefill(batch, starts, lengths) as count, self._last_logits() as seen:
            found = EagleDraftWorker._draft_extend_for_prefill(self, batch, states, info.bonus_tokens)
            self._wrote(batch, found, seen)
        for name in GIVEN:
            setattr(info, name, getattr(found, name))
        assert self.decisions.round is not None
        self.decisions.round.this.caught_up = count

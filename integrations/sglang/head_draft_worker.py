"""A head of the target as the draft: EAGLE, EAGLE-3, and the one layer of multi-token prediction."""

from __future__ import annotations

from speckv.integrations.sglang.drafter import Drafter


class HeadDraftWorker(Drafter):
    """SGLang's worker for heads with decisions.

    A head builds upon the target's hidden states, which are there when the target has just processed a token and never
    again. So it reads every prompt and closes every round, also one without drafts: one layer, and nothing gets stale.
    """

    rests = False

"""llama.cpp's rule: stop below a fixed probability."""

from __future__ import annotations

from speckv.controller.policy import Policy, Round

N_MAX = 16
P_MIN = 0.75


class PMin(Policy):
    """Drafts up to ``n_max`` tokens, and stops after one whose probability is below ``p_min``.

    Source: llama.cpp, ``common/speculative.cpp`` (the draft loop of ``common_speculative_state_draft``) and
    ``common/common.h`` (``common_params_speculative``), as of early 2026 (builds around b8400): ``--draft-max``
    16, ``--draft-min`` 0, ``--draft-p-min`` 0.75; the token is put into the draft first and compared then, so
    the one below ``p_min`` is verified too.

    Since then two things changed. Pull request 22506 (2026-04-29) drops the token below ``p_min`` after its
    forward was paid for; our loop verifies all it drafted. It would save one row of the verify, and lose a
    token that is right now and then. And the defaults became ``--spec-draft-n-max`` 3 and
    ``--spec-draft-p-min`` 0 (the latter: issues 25908, 26100), so today's llama.cpp as it ships is
    ``fixed-3``. These are the last defaults that have the rule switched on.

    llama.cpp's probability is normalised over the ten likeliest tokens, ours over the vocabulary, which is a
    little lower.
    """

    per_level = True

    def __init__(self, n_max: int = N_MAX, p_min: float = P_MIN) -> None:
        self.n_max = n_max
        self.p_min = p_min

    def begin(self, this: Round, room: int) -> int:
        return min(self.n_max, room)

    def deepen(self, this: Round) -> int:
        return len(this.levels) if this.levels[-1][0, 1] < self.p_min else self.n_max

"""transformers' assisted generation with ``num_assistant_tokens_schedule="heuristic"``."""

from __future__ import annotations

from speckv.benchmarks.baselines.hf_default import HFDefault
from speckv.controller.policy import Round


class HFHeuristic(HFDefault):
    """Two tokens more after a round that was accepted whole, one fewer after any other, never below one.

    Source: transformers 5.23.0 (5.19.0 is the same here), ``generation/candidate_generator.py``
    ``AssistedCandidateGenerator.update_candidate_strategy``, and the end of ``generation/utils.py``
    ``_assisted_decoding``, which writes the number back into the draft's generation config. So it starts at
    20, has no ceiling, and, unlike the threshold, persists from sequence to sequence.

    The schedule alone does not turn the confidence threshold off: unless the user does, it stops rounds and is
    refitted as in :class:`HFDefault`, and a round that it stopped counts as accepted whole if all of the few
    drafted tokens were. A round without room to draft counts as accepted whole too.
    """

    def observe(self, this: Round) -> None:
        super().observe(this)
        if this.emitted - 1 == this.gamma:
            self.num_assistant_tokens += 2
        else:
            self.num_assistant_tokens = max(1, self.num_assistant_tokens - 1)

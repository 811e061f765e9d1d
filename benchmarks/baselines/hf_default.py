"""transformers' assisted generation as it ships: up to 20 tokens, stopped by a threshold that is refitted."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_curve

from speckv.controller.policy import Policy, Request, Round

NUM_ASSISTANT_TOKENS = 20
CONFIDENCE_THRESHOLD = 0.4

FEWEST_TO_FIT = 6
"""Outcomes needed before the threshold is refitted (the comment in the source says 5, its code asks for 6)."""

MISS_COST = 3.0
"""What stopping at a token that matched costs, in units of drafting past one that did not."""


class HFDefault(Policy):
    """Drafts while the last token's probability is at least a threshold; refits the threshold every round.

    Source: transformers 5.23.0 (5.19.0 is the same here), ``generation/stopping_criteria.py``
    ``ConfidenceCriteria``; ``generation/candidate_generator.py`` ``AssistedCandidateGenerator``
    (``__init__``, ``_generate_candidates``, ``update_candidate_strategy``, ``_calculate_new_tokens``);
    defaults in ``generation/configuration_utils.py`` ``_get_default_generation_params``: 20 tokens, schedule
    "constant", threshold 0.4.

    - The stop is judged after a token is drafted, on that token's probability, and the token stays in the
      draft and is verified. So a round drafts at least one token.
    - After every round one outcome per judged token is appended to the history: 1 for each match, and 0 for
      the first mismatch if there is one; later tokens of the round are dropped, their outcome being unknown.
    - With six outcomes or more, of both kinds, the threshold becomes the point of the ROC curve (matching is
      positive) that minimises FPR + 3 · FNR, the highest of equals.
    - History and threshold belong to the candidate generator, which every ``generate()`` builds anew from a
      deep copy of the draft's generation config: both start over with each sequence. (The documentation of
      ``assistant_confidence_threshold`` says that it persists; it does not.)

    The probability is that of the drafted token after the logits processors. This reads ``Round``'s top-1
    probability of the raw logits instead: the same for greedy decoding without processors.
    """

    per_level = True

    def __init__(self, num_assistant_tokens: int = NUM_ASSISTANT_TOKENS, threshold: float = CONFIDENCE_THRESHOLD):
        self.num_assistant_tokens = num_assistant_tokens
        self.initial_threshold = threshold
        self._sequence: Request | None = None

    def begin(self, this: Round, room: int) -> int:
        (sequence,) = this.requests  # one prompt is all that assisted generation takes
        if sequence is not self._sequence:
            self._sequence = sequence
            self.threshold = self.initial_threshold
            self._probabilities: list[float] = []
            self._matches: list[int] = []
        return min(self.num_assistant_tokens, room)

    def deepen(self, this: Round) -> int:
        drafted = len(this.levels)
        return drafted if this.levels[-1][0, 1] < self.threshold else max(drafted, self.num_assistant_tokens)

    def observe(self, this: Round) -> None:
        # An accepted EOS is not counted as a match there, but as the token that the target adds.
        matches = this.emitted - 1
        judged = min(matches + 1, this.gamma)
        self._probabilities += [float(level[0, 1]) for level in this.levels[:judged]]
        self._matches += [1] * matches + [0] * (judged - matches)
        # A threshold that became 0 turns both the stop and the refit off.
        if self.threshold and len(self._matches) >= FEWEST_TO_FIT and len(set(self._matches)) == 2:
            self.threshold = best_threshold(self._matches, self._probabilities)


def best_threshold(matches: list[int], probabilities: list[float]) -> float:
    """The probability from which on tokens are best believed, of outcomes of both kinds."""
    false_positives, true_positives, thresholds = roc_curve(matches, probabilities)
    costs = false_positives + MISS_COST * (1.0 - true_positives)
    return float(thresholds[np.argmin(costs)])

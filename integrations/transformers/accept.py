"""Which drafted tokens the target accepts, and the token it says itself: greedy, or by speculative sampling.

Output tokens come one by one, as plain decoding would make them, since the caller may end the text at any of them.
A logits processor may keep a state from call to call (a grammar, classifier-free guidance, a watermark): it is called
once a token of the output, in order, with what plain decoding would give it. Those of transformers that are known to
keep none are called for a whole round beforehand, which spares the host a read a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import logits_process

from speckv.integrations.transformers.draft import fit_vocabulary

STATEFUL = frozenset(
    {
        "UnbatchedClassifierFreeGuidanceLogitsProcessor",
        "SynthIDTextWatermarkLogitsProcessor",
        "PrefixConstrainedLogitsProcessor",  # asks a function of the user's
        "WhisperNoSpeechDetection",
    }
)
"""Of transformers' own logits processors those that keep a state, or may. All others' processors count as such."""


OF_SCORES_ALONE = frozenset(
    f"{name}LogitsWarper" for name in ("Temperature", "TopK", "TopP", "MinP", "Typical", "Epsilon", "Eta")
)
"""Those that do not look at the text: they take all rows of a round at once."""


def stateless(processors: LogitsProcessorList) -> LogitsProcessorList:
    """Those of ``processors`` whose result is known to depend on their arguments alone: the draft is given these."""
    own = (p for p in processors if type(p).__module__ == logits_process.__name__)
    return LogitsProcessorList(p for p in own if type(p).__name__ not in STATEFUL)


def processed(processors: LogitsProcessorList, ids: Tensor, scores: Tensor) -> Tensor:
    """What the :func:`stateless` ``processors`` make of ``scores`` (B, V).

    The list itself looks at every processor's signature in every call, which takes longer than most of them do.
    """
    for processor in processors:
        scores = processor(ids, scores)
    return scores


class Acceptance:
    """The target's side of a round, for one call of ``generate``.

    Sampling is that of Leviathan et al. (arXiv 2211.17192): a token drafted with probability q is accepted with
    min(1, p / q); the first that is not is replaced by one drawn from norm(max(p − q, 0)), which together is p.
    """

    def __init__(self, processors: LogitsProcessorList, sample: bool) -> None:
        self.processors = processors
        self.sample = sample
        self.at_once = len(stateless(processors)) == len(processors)
        self.of_scores_alone = all(type(one).__name__ in OF_SCORES_ALONE for one in stateless(processors))

    def tokens(
        self, ids: Tensor, drafted: Sequence[int], drawn_from: Sequence[Tensor], logits: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """The output tokens of a round, one after the other, each with its processed scores (1, V).

        ``ids`` (1, n + k) end with the ``drafted`` k tokens; ``drawn_from`` has the probabilities (1, V) each was drawn
        with, when sampling; ``logits`` (1, k + 1, V) are the target's, of what follows the text and each drafted token.
        """
        count = len(drafted)
        length = ids.shape[1] - count
        if not self.processors and not self.sample:
            chosen = logits[0].argmax(-1).tolist()
            yield from ((token, logits[:, place]) for place, token in _until_refused(chosen, drafted))
            return
        places = range(count + 1)
        for group in (places,) if self.at_once else ((place,) for place in places):
            # A copy, since processors may write into what they are given.
            rows = logits[0, group[0] : group[-1] + 1].to(torch.float32, copy=True)
            scores = self._scores(ids, rows, [length + place for place in group])
            proposed = drafted[group[0] : group[-1] + 1]
            chosen = self._choose(scores, proposed, drawn_from[group[0] : group[0] + len(proposed)])
            yield from ((token, scores[at : at + 1]) for at, token in _until_refused(chosen, proposed))
            if chosen[: len(proposed)] != list(proposed):
                return

    def _scores(self, ids: Tensor, rows: Tensor, lengths: Sequence[int]) -> Tensor:
        """(r, V): each of ``rows`` (r, V) as it is processed after the first so many of ``ids``."""
        if not self.at_once:
            return self.processors(ids[:, : lengths[0]], rows)
        if self.of_scores_alone:
            return processed(self.processors, ids, rows)
        each = zip(lengths, rows.split(1), strict=True)
        return torch.cat([processed(self.processors, ids[:, :length], row) for length, row in each])

    def _choose(self, scores: Tensor, proposed: Sequence[int], drawn_from: Sequence[Tensor]) -> list[int]:
        """A token for each row of ``scores`` (r, V) up to the first that is not as ``proposed`` (r or r − 1 tokens)."""
        if not self.sample:
            chosen: list[int] = scores.argmax(-1).tolist()
            return chosen
        p = scores.softmax(-1)
        if not proposed:
            last: list[int] = torch.multinomial(p, 1)[:, 0].tolist()
            return last
        q = fit_vocabulary(torch.cat([row.to(p.device) for row in drawn_from]), p.shape[-1], absent=0.0)
        tokens = torch.tensor(proposed, device=p.device)[:, None]
        of_target, of_draft = p[: len(proposed)].gather(1, tokens), q.gather(1, tokens)
        accepted = (torch.rand_like(of_draft) * of_draft < of_target)[:, 0].cumprod(0).sum()
        # After the accepted tokens: the residual, or after all of them the target's own.
        place = accepted.clamp(max=len(p) - 1)
        drafts = torch.where(accepted < len(q), q[place.clamp(max=len(q) - 1)], 0.0)
        weights = (p[place] - drafts).clamp_(min=0)
        weights = torch.where(weights.sum() > 0, weights, p[place])  # p = q but for rounding
        count, drawn = torch.stack((accepted, torch.multinomial(weights, 1)[0])).tolist()
        return [*proposed[:count], *([drawn] if count < len(scores) else [])]


def _until_refused(chosen: Sequence[int], proposed: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(place, token) of what was ``chosen``, up to and with the first that is not as ``proposed``."""
    for place, token in enumerate(chosen):
        yield place, token
        if place < len(proposed) and token != proposed[place]:
            return

"""Which drafted tokens the target accepts, and the token it says itself: greedy, or by speculative sampling.

Output tokens come one by one, as plain decoding would make them, since the caller may end the sequence at any of them.
A logits processor may keep a state from call to call (a grammar, classifier-free guidance, a watermark): it is called
once a token of the output, in order, with what plain decoding would give it. Those of transformers that are known to
keep none are called for a whole round beforehand, which spares the host a read a token.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import logits_process

from speckv.integrations.device import draw, read, sent
from speckv.integrations.transformers.draft import fit_vocabulary
from speckv.integrations.transformers.sequence import TokenSequence
from speckv.integrations.transformers.tree import Tree

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
"""Those that do not look at the sequence: they take all rows of a round at once."""


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


PER_TEXT = "prompt_ignore_length"
"""An attribute of a processor that has one number for each sequence of a batch."""


def of_sequence(processors: LogitsProcessorList, number: int, count: int) -> LogitsProcessorList:
    """The ``processors`` of ``count`` sequences as they apply to one of them alone."""
    if count == 1:
        return processors
    alone = LogitsProcessorList()
    for processor in processors:
        if isinstance(numbers := getattr(processor, PER_TEXT, None), Tensor):
            processor = copy.copy(processor)
            setattr(processor, PER_TEXT, numbers[number : number + 1])
        alone.append(processor)
    return alone


def hear(
    each: Sequence[Acceptance], trees: Sequence[Tree], drawn_from: Sequence[Sequence[Tensor]], logits: Tensor
) -> list[list[int]]:
    """What the host has to know of a round before it calls each sequence's :meth:`Acceptance.tokens`, in one read.

    ``trees`` follow the sequences; ``drawn_from`` has the probabilities (1, V) that each token of a spine was drawn
    with, when sampling; ``logits`` (n, rows, V) are the target's, of what follows each row, and the shorter trees' are
    filled up at the end.
    """
    if each[0].processors or each[0].sample:
        whole = zip(each, trees, drawn_from, logits, strict=True)
        return read([one.ask(tree, drawn, rows[: tree.rows]) for one, tree, drawn, rows in whole])
    for one, rows in zip(each, logits, strict=True):
        one.scores = rows
    said: list[list[int]] = logits.argmax(-1).tolist()
    return said


class Acceptance:
    """The target's side of a round, for one sequence.

    Sampling is that of Leviathan et al. (arXiv 2211.17192): a token drafted with probability q is accepted with
    min(1, p / q); the first that is not is replaced by one drawn from r = norm(max(p − q, 0)), which together is p.
    Where that token was verified beside the spine, the round goes on from its row, with one drawn from p there, and so
    on. To accept siblings s one after the other with r(s), r renormalised in between, would be the same draw from r.
    """

    def __init__(self, sequence: TokenSequence, processors: LogitsProcessorList, sample: bool) -> None:
        self.sequence = sequence
        self.processors = processors
        self.sample = sample
        self.stateless = stateless(processors)
        self.at_once = len(self.stateless) == len(processors)
        self.of_scores_alone = all(type(one).__name__ in OF_SCORES_ALONE for one in self.stateless)

    def ask(self, tree: Tree, drawn_from: Sequence[Tensor], logits: Tensor) -> Tensor:
        """What :func:`hear` reads, (k,), of a tree's ``logits`` (rows, V); nothing where a processor keeps state."""
        self.scores = logits
        if not self.at_once:
            return logits.new_empty(0, dtype=torch.long)
        # A copy, since processors may write into what they are given.
        self.scores = self._scores(tree, logits.to(torch.float32, copy=True))
        return self._drawn(self.scores, tree, drawn_from) if self.sample else self.scores.argmax(-1)

    def tokens(
        self, tree: Tree, drawn_from: Sequence[Tensor], said: Sequence[int]
    ) -> Iterator[tuple[int, int, Tensor]]:
        """The output tokens of a round, one by one: the row that each follows, the token, its processed scores (1, V).

        ``said`` is what :func:`hear` heard for this sequence, all else as it was given there.
        """
        if self.at_once:
            chosen = _drawn_walk(tree, said, tree.rows) if self.sample else _walk(tree, said)
            yield from ((row, token, self.scores[row : row + 1]) for row, token in chosen)
            return
        row: int | None = 0
        sequence, processors = self.sequence.ids, cast(Callable[[Tensor, Tensor], Tensor], self.processors)
        while row is not None:
            ids = _followed(sequence, tree, row)
            scores = processors(ids, self.scores[row : row + 1].to(torch.float32, copy=True))
            if self.sample:
                after = Tree.chain(tree.tokens[row : row + 1] if row < tree.spine else [])
                (numbers,) = read([self._drawn(scores, after, drawn_from[row : row + 1])])
                token = next(_drawn_walk(after, numbers, 1))[1]
            else:
                token = int(scores.argmax(-1))
            yield row, token, scores
            row = tree.child(row, token)

    def _scores(self, tree: Tree, logits: Tensor) -> Tensor:
        """(rows, V): each row of ``logits`` as it is processed after the tokens that lead to it."""
        sequence = self.sequence.ids
        if self.of_scores_alone:
            return processed(self.processors, sequence, logits)
        paths = (_followed(sequence, tree, row) for row in range(tree.rows))
        return torch.cat(
            [processed(self.processors, ids, row) for ids, row in zip(paths, logits.split(1), strict=True)]
        )

    def _drawn(self, scores: Tensor, tree: Tree, drawn_from: Sequence[Tensor]) -> Tensor:
        """What :func:`_drawn_walk` needs. ``scores`` (r, V) are of all rows, or of row 0 alone."""
        p = scores.softmax(-1)
        if tree.spine:
            accepted, token = self._of_spine(p[: tree.spine + 1], tree.tokens[: tree.spine], drawn_from)
        else:
            accepted, token = p.new_zeros(()), draw(p[:1])[0]
        # Of all other rows what would be drawn, should the round come to them.
        others = draw(p[tree.spine + 1 :])[:, 0] if tree.branches else token[:0]
        wrong = p[:, 0].isnan().any()
        return torch.cat((torch.stack((wrong.long(), accepted.long())), token, others))

    def _of_spine(self, p: Tensor, proposed: Sequence[int], drawn_from: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """How many of the ``proposed`` k tokens are accepted, (), and the token (1,) drawn after them.

        ``p`` (k + 1, V) or, without the last, (k, V).
        """
        q = fit_vocabulary(torch.cat([row.to(p.device) for row in drawn_from]), p.shape[-1], absent=0.0)
        tokens = sent(proposed, p.device)[:, None]
        of_target, of_draft = p[: len(proposed)].gather(1, tokens), q.gather(1, tokens)
        accepted = (torch.rand_like(of_draft) * of_draft < of_target)[:, 0].cumprod(0).sum()
        # After the accepted tokens: the residual, or after all of them the target's own.
        place = accepted.clamp(max=len(p) - 1)
        drafts = torch.where(accepted < len(q), q[place.clamp(max=len(q) - 1)], 0.0)
        weights = (p[place] - drafts).clamp_(min=0)
        weights = torch.where(weights.sum() > 0, weights, p[place])  # p = q but for rounding
        return accepted, draw(weights[None])[0]


def _followed(sequence: Tensor, tree: Tree, row: int) -> Tensor:
    """``sequence`` (1, n) with the tokens of ``tree`` that lead to ``row``."""
    return torch.cat((sequence, sent([tree.path(row)], sequence.device, sequence.dtype)), dim=1)


def _drawn_walk(tree: Tree, said: Sequence[int], rows: int) -> Iterator[tuple[int, int]]:
    """(row, token) from row 0 on, the last token being one that the tree has not got, or that of its last of ``rows``.

    ``said``: whether a row has no distribution, how many of the spine are accepted, the token after these, and that
    after each row beside the spine.
    """
    wrong, count, *drawn = said
    if wrong:  # as torch.multinomial says it, and so plain decoding
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    yield from enumerate(tree.tokens[:count])
    if count < rows:
        yield count, drawn[0]
        row = tree.child(count, drawn[0])
        while row is not None and row > tree.spine:
            yield row, drawn[row - tree.spine]
            row = tree.child(row, drawn[row - tree.spine])


def _walk(tree: Tree, chosen: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(row, token) from row 0 on, ``chosen`` being the token after each row, down to one that the tree has not got."""
    row: int | None = 0
    while row is not None:
        yield row, chosen[row]
        row = tree.child(row, chosen[row])

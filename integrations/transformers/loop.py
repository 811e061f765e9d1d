"""Speculative decoding, top to bottom: draft, verify, accept, keep, learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList

from speckv.controller.policy import SIBLINGS, Policy, Request, Round
from speckv.integrations.device import draw
from speckv.integrations.signals import CANDIDATES, LEVEL, pack
from speckv.integrations.transformers.accept import Acceptance, hear, of_sequence, processed
from speckv.integrations.transformers.draft import DraftModel, fit_vocabulary
from speckv.integrations.transformers.sequence import TokenSequence
from speckv.integrations.transformers.target import TargetModel
from speckv.integrations.transformers.tree import Drafted, Tree

RoundListener = Callable[[Round], None]


def speculate(
    target: TargetModel,
    draft: DraftModel,
    policy: Policy,
    sequences: Sequence[TokenSequence],
    processors: LogitsProcessorList,
    sample: bool,
    listener: RoundListener,
) -> None:
    """Decode ``sequences`` to their ends: what the target says, whatever is drafted.

    Whether a drafted token is verified never depends on which one it is; ``policy`` sees no acceptance draw and no
    target logits of the round that it decides about.
    """
    drafter = Drafter(draft, policy, sample, sequences[0].eos)
    count, prompt, first = len(sequences), sequences[0].length, True
    live = [
        _Live(sequence, Acceptance(sequence, of_sequence(processors, row, count), sample))
        for row, sequence in enumerate(sequences)
    ]
    while live:
        started = perf_counter()
        lengths = [one.sequence.length for one in live]
        for one, stale in zip(live, draft.stale(lengths), strict=True):
            one.request.stale = stale
        this = Round([one.request for one in live], max(lengths), verify_prefill=first)
        left = max(one.sequence.max_length - one.sequence.length - 1 for one in live)
        room = max(0, min(left, target.room(lengths), draft.room(lengths)))
        most = min(policy.begin(this, room), room)
        this.resting = most <= 0
        this.decide_ms = (perf_counter() - started) * 1e3

        going_on = [one.sequence for one in live]
        drafts = [Drafted() for _ in live]
        if not this.resting:
            drafts = drafter.draft(going_on, [one.accept.stateless for one in live], most, this)
        if this.gamma:
            started = perf_counter()
            chosen = policy.choose(this)
            this.decide_ms += (perf_counter() - started) * 1e3
            if chosen is not None and target.branches:
                this.siblings = chosen & (np.array([drafted.others for drafted in drafts]) >= 0)

        started = perf_counter()
        trees = [
            Tree.beside(drafted.tokens, drafted.others, None if this.siblings is None else this.siblings[number])
            for number, drafted in enumerate(drafts)
        ]
        callers, kept = 0.0, []
        with torch.inference_mode(target.inference):
            logits = target.verify(going_on, trees).to(sequences[0].device)
        heard = hear([one.accept for one in live], trees, [drafted.drawn_from for drafted in drafts], logits)
        for one, tree, drafted, its, said in zip(live, trees, drafts, logits, heard, strict=True):
            rows, accepted, rank, waited = one.take(tree, drafted, its, said)
            this.accepted.append(accepted)
            this.ranks.append(rank)
            this.emitted += len(rows)
            callers += waited
            kept.append(rows)
        with torch.inference_mode(target.inference):
            target.keep(trees, kept)
        draft.keep([length + accepted for length, accepted in zip(lengths, this.accepted, strict=True)])
        this.verify_ms = (perf_counter() - started - callers) * 1e3

        policy.observe(this)
        this.remember()
        listener(this)
        first = False
        going = [number for number, one in enumerate(live) if not one.sequence.ended]
        if len(going) < len(live):
            for one in live:
                if one.sequence.ended:
                    policy.ended(one.sequence.length - prompt)
            live = [live[number] for number in going]
            if live:
                with torch.inference_mode(target.inference):
                    target.select(going)
                draft.select(going)


@dataclass
class _Live:
    """A sequence that has not ended."""

    sequence: TokenSequence
    accept: Acceptance
    request: Request = field(default_factory=Request)

    def take(
        self, tree: Tree, drafted: Drafted, logits: Tensor, said: Sequence[int]
    ) -> tuple[list[int], int, int, float]:
        """Add a round's tokens: the rows that they follow, how many of the spine were accepted, the rank of what came
        in place of its next, and the seconds that the caller's own code took.

        A streamer may wait for its reader, which says nothing about a verify. ``said`` is what :func:`hear` heard.
        """
        rows: list[int] = []
        accepted = rank = 0
        callers = 0.0
        for row, token, scores in self.accept.tokens(tree, drafted.drawn_from, said):
            rows.append(row)
            if row < tree.spine:
                if token == tree.tokens[row]:
                    accepted += 1
                else:
                    rank = drafted.rank(row, token)
            handed = perf_counter()
            ended = self.sequence.add(token, scores, logits[row : row + 1])
            callers += perf_counter() - handed
            if ended:
                break
        return rows, accepted, rank, callers


class Drafter:
    """Draws tokens from the draft, one forward each, until the policy has enough of them."""

    def __init__(self, model: DraftModel, policy: Policy, sample: bool, eos: frozenset[int]) -> None:
        self.model = model
        self.policy = policy
        self.sample = sample
        self.eos = eos

    @torch.inference_mode()
    def draft(
        self, sequences: Sequence[TokenSequence], processors: Sequence[LogitsProcessorList], most: int, this: Round
    ) -> list[Drafted]:
        """Up to ``most`` tokens after each of ``sequences``; fills in what ``this`` round says of drafting.

        ``processors`` are those of each sequence that keep no state. Signals and tokens are read together: as
        they come where the policy is asked about them, else all at once.
        """
        started = perf_counter()
        asked_ms = 0.0
        this.caught_up = sum(request.stale for request in this.requests)
        this.draft_prefill = self.model.begins([sequence.length for sequence in sequences])
        processes = any(processors)
        prefixes = [sequence.ids.to(self.model.device) for sequence in sequences] if processes else []
        drafts = [Drafted() for _ in sequences]
        unread: list[Tensor] = []
        asks, per_level = self.policy.asks, self.policy.per_level
        made, wanted, ended = 0, most, False
        token: Tensor | None = None
        while made < wanted and not ended:
            logits = self.model.feed(sequences) if token is None else self.model.step(token)
            token, drawn_from = self._draw(prefixes, processors if processes else (), logits)
            unread.append(pack(token, logits))
            token = unread[-1][:, :1].long() if token is None else token
            if processes:
                prefixes = [torch.cat((p, one), dim=1) for p, one in zip(prefixes, token.split(1), strict=True)]
            if drawn_from is not None:
                for drafted, row in zip(drafts, drawn_from.split(1), strict=True):
                    drafted.drawn_from.append(row)
            made += 1
            if asks and (per_level or made == 1):
                # An EOS is asked about as any token is: what is verified must not depend on which one was drawn. For
                # the same reason only the newest can be left out, since its signals know those before it.
                ended = self._read(unread, drafts, this)
                asked = perf_counter()
                wanted = min(most, max(self.policy.deepen(this), made - 1))
                asked_ms += (perf_counter() - asked) * 1e3
        if unread:
            self._read(unread, drafts, this)
        this.gamma = min(wanted, len(drafts[0].tokens))
        for drafted in drafts:
            drafted.cut(this.gamma)
        this.decide_ms += asked_ms
        this.draft_ms = (perf_counter() - started) * 1e3 - asked_ms
        return drafts

    def _draw(
        self, prefixes: Sequence[Tensor], processors: Sequence[LogitsProcessorList], logits: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """The draft's next tokens (n, 1) after ``prefixes`` (1, …), and, sampling, what they were drawn with (n, V).

        No tokens: the most probable, which come with the signals.
        """
        if not self.sample and not processors and logits.shape[-1] <= self.model.vocabulary:
            return None, None
        scores = fit_vocabulary(logits, self.model.vocabulary)
        if self.sample or processors:
            scores = scores.to(torch.float32, copy=True)
        if processors:
            each = zip(processors, prefixes, scores.split(1), strict=True)
            scores = torch.cat([processed(own, prefix, row) for own, prefix, row in each])
        if not self.sample:
            return scores.argmax(-1, keepdim=True), None
        p = scores.softmax(-1)
        return draw(p), p

    def _read(self, unread: list[Tensor], drafts: Sequence[Drafted], this: Round) -> bool:
        """Fetch what the host has not seen yet, in one read; True once an EOS was drafted for every sequence.

        What is drafted after that (only when reads are deferred) is left out: no output can contain it.
        """
        fetched = torch.stack(unread).cpu().numpy()
        unread.clear()
        this.levels += [level[:, LEVEL] for level in fetched]
        for level in fetched.tolist():
            for drafted, row in zip(drafts, level, strict=True):
                token = int(row[0])
                drafted.tokens.append(token)
                drafted.ended |= token in self.eos
                others = [int(other) for other in row[CANDIDATES] if other != token and other < self.model.vocabulary]
                drafted.others.append([*others, *[-1] * SIBLINGS][:SIBLINGS])
            if all(drafted.ended for drafted in drafts):
                return True
        return False

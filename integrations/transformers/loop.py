"""Speculative decoding of one text, top to bottom: draft, verify, accept, rewind, learn."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from speckv.controller.policy import Policy, Round
from speckv.integrations.signals import pack, unpack
from speckv.integrations.transformers.accept import Acceptance, processed, stateless
from speckv.integrations.transformers.draft import DraftModel, fit_vocabulary
from speckv.integrations.transformers.target import TargetModel
from speckv.integrations.transformers.text import Text

RoundListener = Callable[[Round], None]


def speculate(
    target: TargetModel,
    draft: DraftModel,
    policy: Policy,
    text: Text,
    processors: LogitsProcessorList,
    sample: bool,
    listener: RoundListener,
) -> Any:
    """Decode ``text`` to its end and return what ``generate`` returns: the target's own output, whatever is drafted.

    Every token drafted is verified, whatever it is; ``policy`` sees no acceptance draw and no target logits of the
    round that it decides about.
    """
    accept = Acceptance(processors, sample)
    drafter = Drafter(draft, policy, stateless(processors), sample, text.eos)
    policy.start()
    first = True
    while not text.ended:
        started = perf_counter()
        this = Round(position=text.length, verify_prefill=first)
        room = (text.max_length - text.length - 1, target.room(text.length), draft.room(text.length))
        gamma = policy.begin(max(0, min(room)))
        this.decide_ms = (perf_counter() - started) * 1e3

        ids, drafted, drawn_from = text.ids, [], []
        if gamma > 0:
            drafted, drawn_from = drafter.draft_tokens(ids, gamma, this)
            ids = torch.cat((ids, ids.new_tensor([drafted])), dim=1)

        started = perf_counter()
        callers = 0.0  # a streamer may wait for its reader, which says nothing about a verify
        logits = target.verify(ids, len(drafted)).to(ids.device)
        for place, (token, scores) in enumerate(accept.tokens(ids, drafted, drawn_from, logits)):
            this.emitted = place + 1
            this.accepted += place < len(drafted) and token == drafted[place]
            handed = perf_counter()
            ended = text.add(token, scores, logits[:, place])
            callers += perf_counter() - handed
            if ended:
                break
        target.rewind(len(drafted) + 1 - this.emitted)
        this.verify_ms = (perf_counter() - started - callers) * 1e3

        policy.observe(this)
        listener(this)
        first = False
    return text.output(target.release(), target.name)


class Drafter:
    """Draws tokens from the draft, one forward each, until the policy has enough of them."""

    def __init__(
        self, draft: DraftModel, policy: Policy, processors: LogitsProcessorList, sample: bool, eos: frozenset[int]
    ) -> None:
        self.draft = draft
        self.policy = policy
        self.processors = processors
        self.sample = sample
        self.eos = eos

    @torch.inference_mode()
    def draft_tokens(self, text: Tensor, gamma: int, this: Round) -> tuple[list[int], list[Tensor]]:
        """Up to ``gamma`` tokens after ``text`` (1, n); when sampling, the probabilities (1, V) each was drawn with.

        Fills in what ``this`` round says of drafting. Signals and tokens are read by the host together: one by one
        where the policy wants to see them, else all at once.
        """
        started = perf_counter()
        asked_ms = 0.0
        length = text.shape[1]
        prefix = text.to(self.draft.device)
        this.catch_up = self.draft.rewind(length)
        this.draft_prefill = this.catch_up == length
        fed = prefix[:, self.draft.cached :]
        drafted: list[int] = []
        unread: list[Tensor] = []
        drawn_from: list[Tensor] = []
        for end in range(length, length + gamma):
            logits = self.draft.step(fed, end)
            fed = token = self._draw(prefix, logits, drawn_from)
            if self.processors:
                prefix = torch.cat((prefix, token), dim=1)
            unread.append(pack(token, logits))
            if self.policy.per_token:
                if self._read(unread, drafted, this) or end + 1 == length + gamma:
                    break
                asked = perf_counter()
                more = self.policy.more(this.entropies, this.confidences)
                asked_ms += (perf_counter() - asked) * 1e3
                if not more:
                    break
        self._read(unread, drafted, this)
        this.decide_ms += asked_ms
        this.draft_ms = (perf_counter() - started) * 1e3 - asked_ms
        return drafted, drawn_from[: len(drafted)]

    def _draw(self, prefix: Tensor, logits: Tensor, drawn_from: list[Tensor]) -> Tensor:
        """The draft's next token (1, 1) after ``prefix`` (1, n); a sample's probabilities go to ``drawn_from``."""
        scores = fit_vocabulary(logits, self.draft.vocabulary)
        if self.sample or self.processors:
            scores = processed(self.processors, prefix, scores.to(torch.float32, copy=True))
        if not self.sample:
            return scores.argmax(-1, keepdim=True)
        drawn_from.append(scores.softmax(-1))
        return torch.multinomial(drawn_from[-1], 1)

    def _read(self, unread: list[Tensor], drafted: list[int], this: Round) -> bool:
        """Fetch what the host has not seen yet, in one read; True once an EOS was drafted.

        What was drafted after an EOS (only when reads are deferred) is left out: no output can contain it.
        """
        if not unread:
            return False
        fetched = (unread[0] if len(unread) == 1 else torch.cat(unread)).tolist()
        unread.clear()
        for token, entropy, confidence in map(unpack, fetched):
            drafted.append(token)
            this.entropies.append(entropy)
            this.confidences.append(confidence)
            if token in self.eos:
                return True
        return False

"""Speculative decoding of one text, top to bottom: draft, verify, accept, rewind, learn."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from speckv.controller.policy import Policy, Request, Round
from speckv.integrations.signals import pack
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

    Whether a drafted token is verified never depends on which one it is; ``policy`` sees no acceptance draw and no
    target logits of the round that it decides about.
    """
    accept = Acceptance(processors, sample)
    drafter = Drafter(draft, policy, stateless(processors), sample, text.eos)
    request, prompt, first = Request(), text.length, True
    while not text.ended:
        started = perf_counter()
        request.stale = draft.stale(text.length)
        this = Round([request], text.length, verify_prefill=first)
        room = max(0, min(text.max_length - text.length - 1, target.room(text.length), draft.room(text.length)))
        most = min(policy.begin(this, room), room)
        this.resting = most <= 0
        this.decide_ms = (perf_counter() - started) * 1e3

        ids, drafted, drawn_from = text.ids, [], []
        if not this.resting:
            drafted, drawn_from = drafter.draft_tokens(ids, most, this)
            ids = torch.cat((ids, ids.new_tensor([drafted])), dim=1)

        started = perf_counter()
        callers = 0.0  # a streamer may wait for its reader, which says nothing about a verify
        accepted = 0
        logits = target.verify(ids, len(drafted)).to(ids.device)
        for place, (token, scores) in enumerate(accept.tokens(ids, drafted, drawn_from, logits)):
            this.emitted = place + 1
            accepted += place < len(drafted) and token == drafted[place]
            handed = perf_counter()
            ended = text.add(token, scores, logits[:, place])
            callers += perf_counter() - handed
            if ended:
                break
        target.rewind(len(drafted) + 1 - this.emitted)
        this.verify_ms = (perf_counter() - started - callers) * 1e3

        this.accepted, this.ranks = [accepted], [0]
        policy.observe(this)
        this.remember()
        listener(this)
        first = False
    policy.ended(text.length - prompt)
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
    def draft_tokens(self, text: Tensor, most: int, this: Round) -> tuple[list[int], list[Tensor]]:
        """Up to ``most`` tokens after ``text`` (1, n); when sampling, the probabilities (1, V) each was drawn with.

        Fills in what ``this`` round says of drafting. Signals and tokens are read by the host together: as they come
        where the policy is asked about them, else all at once.
        """
        started = perf_counter()
        asked_ms = 0.0
        length = text.shape[1]
        prefix = text.to(self.draft.device)
        this.caught_up = this.requests[0].stale
        this.draft_prefill = self.draft.rewind(length) == length
        fed = prefix[:, self.draft.cached :]
        drafted: list[int] = []
        unread: list[Tensor] = []
        drawn_from: list[Tensor] = []
        asks, per_level = self.policy.asks, self.policy.per_level
        made, wanted, ended = 0, most, False
        while made < wanted and not ended:
            logits = self.draft.step(fed, length + made)
            fed = token = self._draw(prefix, logits, drawn_from)
            if self.processors:
                prefix = torch.cat((prefix, token), dim=1)
            unread.append(pack(token, logits))
            made += 1
            if asks and (per_level or made == 1):
                # An EOS is asked about as any token is: what is verified must not depend on which one was drawn. For
                # the same reason only the newest can be left out, since its signals know those before it.
                ended = self._read(unread, drafted, this)
                asked = perf_counter()
                wanted = min(most, max(self.policy.deepen(this), made - 1))
                asked_ms += (perf_counter() - asked) * 1e3
        if unread:
            self._read(unread, drafted, this)
        this.gamma = gamma = min(wanted, len(drafted))
        this.decide_ms += asked_ms
        this.draft_ms = (perf_counter() - started) * 1e3 - asked_ms
        return drafted[:gamma], drawn_from[:gamma]

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

        Tokens drafted after an EOS (only when reads are deferred) are left out: no output can contain them.
        """
        fetched = (unread[0] if len(unread) == 1 else torch.cat(unread)).cpu().numpy()
        unread.clear()
        this.levels += [fetched[row : row + 1, 1:] for row in range(len(fetched))]
        for token in map(int, fetched[:, 0].tolist()):
            drafted.append(token)
            if token in self.eos:
                return True
        return False

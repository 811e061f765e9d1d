"""Attach to, and detach from, one target model: the only place that overrides anything of transformers.

An instance attribute ``generate`` wraps the class's own. A call with the attached draft as ``assistant_model`` goes on
to the class's with our loop as ``custom_generate``, transformers' documented hook; every other call as it is.
"""

from __future__ import annotations

import copy
import functools
import logging
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from speckv.controller.errors import SpecKVError
from speckv.controller.policy import Policy, Round
from speckv.controller.stats import Stats
from speckv.integrations.transformers.batch import DraftBatch, TargetBatch
from speckv.integrations.transformers.branches import known_to_branch
from speckv.integrations.transformers.call import Call, LeaveAlone, check_prepared, check_processes
from speckv.integrations.transformers.compatibility import check_transformers
from speckv.integrations.transformers.draft import DraftModel, examine
from speckv.integrations.transformers.loop import RoundListener, speculate
from speckv.integrations.transformers.pairing import check_pair, unwrapped
from speckv.integrations.transformers.sequence import TokenSequence, padded
from speckv.integrations.transformers.target import DecodePlainly, TargetModel

logger = logging.getLogger("speckv")

HOOK, OVERRIDE = "_speckv", "generate"
COPY_ATTEMPTS = 20


class Attachment:
    """What an attached target carries: the draft, the policy, and what was counted.

    Held in the target's ``__dict__`` inside a plain object, so that the draft is not registered as a sub-module and
    never reaches a state dict, a saved folder or a pickle.
    """

    def __init__(self, draft: PreTrainedModel, policy: Policy, listener: RoundListener | None) -> None:
        self.draft = draft
        self.policy = policy
        self.listener = listener
        self.stats = Stats()
        self._idle = [policy]
        self._told: set[str] = set()

    @contextmanager
    def free_policy(self) -> Iterator[Policy]:
        """The policy, or a copy of it while another thread decodes with it: it learns from one sequence at a time."""
        try:
            policy = self._idle.pop()
        except IndexError:
            policy = self._copy()
        try:
            yield policy
        finally:
            if policy is self.policy:
                self._idle.append(policy)

    def _copy(self) -> Policy:
        for _ in range(COPY_ATTEMPTS):
            try:
                return copy.deepcopy(self.policy)
            except RuntimeError:  # the other thread has learnt something meanwhile
                continue
        return copy.deepcopy(self.policy)

    def report(self, outcome: Round) -> None:
        self.stats.add(outcome)
        if self.listener is not None:
            self.listener(outcome)

    def tell(self, text: str) -> None:
        """Log ``text`` once."""
        if text not in self._told:
            self._told.add(text)
            logger.warning("speckv: %s", text)

    def __deepcopy__(self, memo: dict[int, Any]) -> Attachment:
        """A copied target drafts with the same draft model, but learns and counts for itself."""
        clone = Attachment(self.draft, copy.deepcopy(self.policy, memo), self.listener)
        memo[id(self)] = clone
        return clone

    def __reduce__(self) -> tuple[Any, ...]:
        logger.warning("speckv: a pickled model is not attached; call attach() again after loading it")
        return (_nothing, ())


def _nothing() -> None:
    return None


def attach_policy(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    policy: Policy,
    listener: RoundListener | None = None,
    same_tokenizer: bool | None = None,
) -> None:
    """Make ``target.generate(assistant_model=draft)`` draft as ``policy`` says; see :func:`attach` for the rest."""
    check_transformers()
    target, draft = unwrapped(target), unwrapped(draft)
    check_pair(target, draft, same_tokenizer)
    if OVERRIDE in target.__dict__ and HOOK not in target.__dict__:
        raise SpecKVError(f"{type(target).__name__} already has a generate() of its own; speckv cannot wrap that one")
    examine(draft)
    target.__dict__[HOOK] = Attachment(draft, policy, listener)
    target.__dict__[OVERRIDE] = types.MethodType(_wrapping(getattr(type(target), OVERRIDE)), target)


def detach(target: PreTrainedModel) -> None:
    """Give ``target`` back as it was; nothing happens when it is not attached."""
    target = unwrapped(target)
    if target.__dict__.pop(HOOK, None) is not None:
        del target.__dict__[OVERRIDE]


def attachment(target: PreTrainedModel) -> Attachment:
    """The attachment of ``target``; raises SpecKVError when there is none."""
    found = unwrapped(target).__dict__.get(HOOK)
    if not isinstance(found, Attachment):
        raise SpecKVError(f"{type(target).__name__} is not attached; call attach(target, draft) first")
    return found


def stats(target: PreTrainedModel, reset: bool = False) -> Stats:
    """What was counted on ``target`` since attach() or the last reset."""
    found = attachment(target)
    counted = found.stats
    counted.trees = known_to_branch(unwrapped(target))
    if reset:
        found.stats = Stats()
    return counted


def _wrapping(stock: Callable[..., Any]) -> Callable[..., Any]:
    """``stock``, a class's ``generate``, with our loop in it for the calls that are ours."""

    @functools.wraps(stock)
    def generate(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        found = self.__dict__.get(HOOK)
        call = Call.of(stock, self, args, kwargs)
        if not isinstance(found, Attachment) or call.assistant is None:
            return stock(self, *args, **kwargs)
        if unwrapped(call.assistant) is not found.draft:
            found.tell("assistant_model is not the attached draft: this call is transformers' own")
            return stock(self, *args, **kwargs)
        try:
            check_processes(self)
            return stock(self, **call.with_loop(_loop(found, call)))
        except LeaveAlone:
            return stock(self, *args, **kwargs)
        except DecodePlainly as reason:
            found.tell(f"decoded plainly: {reason}")
            return stock(self, **call.without_draft())

    return generate


def _loop(found: Attachment, call: Call) -> Callable[..., Any]:
    """Our loop as a ``custom_generate``: ``generate`` calls it when all is prepared."""

    def decode(
        model: PreTrainedModel,
        input_ids: Any,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **keywords: Any,
    ) -> Any:
        check_prepared(generation_config, input_ids, keywords)
        vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
        several, mask = len(input_ids) > 1, keywords.get("attention_mask")
        private = not generation_config.return_dict_in_generate and call.cache is None
        if several:
            call.check_several(generation_config, logits_processor, stopping_criteria)
            ours: TargetModel = TargetBatch(model, keywords, private, generation_config.max_length)
            mask = torch.ones_like(input_ids) if mask is None else mask
            draft: DraftModel = DraftBatch(found.draft, mask, vocabulary)
        else:
            ours, draft = TargetModel(model, keywords, private), DraftModel(found.draft, mask, vocabulary)
        sequences = [
            TokenSequence(ids, stopping_criteria, generation_config, call.streamer) for ids in input_ids.split(1)
        ]
        sample = bool(generation_config.do_sample)
        with found.free_policy() as policy:
            speculate(ours, draft, policy, sequences, logits_processor, sample, found.report)
        if not ours.rolls_back:
            found.tell(f"decoded plainly: {type(model).__name__} keeps a state that cannot be rolled back")
        if several:
            return padded(sequences, generation_config)
        return sequences[0].output(ours.release(), ours.name)

    return decode

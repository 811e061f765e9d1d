"""Attach to, and detach from, one target model: the only place that overrides anything of transformers."""

from __future__ import annotations

import copy
import logging
import types
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel
from transformers.generation.candidate_generator import CandidateGenerator

from speckv.controller.errors import SpecKVError
from speckv.controller.policy import Policy, Round
from speckv.controller.stats import Stats
from speckv.integrations.transformers.candidates import AdaptiveCandidateGenerator, RoundListener
from speckv.integrations.transformers.compatibility import check_pair, check_transformers
from speckv.integrations.transformers.draft import is_decoder_and_head
from speckv.integrations.transformers.handed_in import feed_only_what_is_new

logger = logging.getLogger("speckv")

HOOK = "_speckv"
_direct: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
OVERRIDES = ("_get_candidate_generator", "_validate_generation_mode")


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

    def drafts_directly(self) -> bool:
        """See :func:`is_decoder_and_head`; asked when a draft is first used, since that takes two of its forwards."""
        if self.draft not in _direct:
            _direct[self.draft] = is_decoder_and_head(self.draft)
        return _direct[self.draft]

    def report(self, outcome: Round) -> None:
        self.stats.add(outcome)
        if self.listener is not None:
            self.listener(outcome)

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
    check_pair(target, draft, same_tokenizer)
    target.__dict__[HOOK] = Attachment(draft, policy, listener)
    target.__dict__["_get_candidate_generator"] = types.MethodType(_get_candidate_generator, target)
    target.__dict__["_validate_generation_mode"] = types.MethodType(_validate_generation_mode, target)


def detach(target: PreTrainedModel) -> None:
    """Give ``target`` back as it was; nothing happens when it is not attached."""
    for name in (HOOK, *OVERRIDES, "prepare_inputs_for_generation"):
        target.__dict__.pop(name, None)


def attachment(target: PreTrainedModel) -> Attachment:
    """The attachment of ``target``; raises SpecKVError when there is none."""
    found = target.__dict__.get(HOOK)
    if not isinstance(found, Attachment):
        raise SpecKVError(f"{type(target).__name__} is not attached; call attach(target, draft) first")
    return found


def stats(target: PreTrainedModel, reset: bool = False) -> Stats:
    """What was counted on ``target`` since attach() or the last reset."""
    found = attachment(target)
    counted = found.stats
    if reset:
        found.stats = Stats()
    return counted


def _ours(target: PreTrainedModel, assistant: PreTrainedModel | None, generation_config: Any) -> bool:
    """Whether this call is plain assisted generation with the attached draft; all else is transformers' business."""
    found = target.__dict__.get(HOOK)
    return (
        isinstance(found, Attachment)
        and assistant is found.draft
        and not target.config.is_encoder_decoder
        and generation_config.assistant_early_exit is None
        and generation_config.prompt_lookup_num_tokens is None
        and not getattr(generation_config, "use_mtp", None)
        and getattr(generation_config, "speculation_type", None) is None
    )


def _validate_generation_mode(
    self: PreTrainedModel,
    generation_mode: Any,
    generation_config: Any,
    generation_mode_kwargs: dict[str, Any],
) -> None:
    """The stock check, except that the attached draft may pad the same vocabulary to another size.

    transformers takes unequal sizes for unequal tokenizers unless two tokenizers are given; attach() has compared
    them already, so the check is told that they were.
    """
    given = generation_mode_kwargs
    assistant = given.get("assistant_model")
    if (
        _ours(self, assistant, generation_config)
        and "assistant_tokenizer" not in given
        and _vocabulary(self) != _vocabulary(assistant)
    ):
        given = {**given, "tokenizer": None, "assistant_tokenizer": None}
    type(self)._validate_generation_mode(self, generation_mode, generation_config, given)


def _vocabulary(model: Any) -> int:
    return int(model.config.get_text_config().vocab_size)


def _get_candidate_generator(
    self: PreTrainedModel,
    generation_config: Any,
    input_ids: Any,
    inputs_tensor: Any,
    logits_processor: Any,
    model_kwargs: dict[str, Any],
    assistant_model: PreTrainedModel | None = None,
    target_tokenizer: Any = None,
    assistant_tokenizer: Any = None,
    **kwargs: Any,
) -> CandidateGenerator:
    universal = target_tokenizer is not None and assistant_tokenizer is not None
    if universal or not _ours(self, assistant_model, generation_config):
        return type(self)._get_candidate_generator(
            self,
            generation_config=generation_config,
            input_ids=input_ids,
            inputs_tensor=inputs_tensor,
            logits_processor=logits_processor,
            model_kwargs=model_kwargs,
            assistant_model=assistant_model,
            target_tokenizer=target_tokenizer,
            assistant_tokenizer=assistant_tokenizer,
            **kwargs,
        )
    found = attachment(self)
    if input_ids.shape[0] != 1:
        raise SpecKVError(
            f"batch of {input_ids.shape[0]} prompts: assisted generation takes one prompt a call; "
            "call generate() once per prompt, or leave assistant_model out"
        )
    if getattr(generation_config, "assistant_ensemble_weight", None) is not None:
        raise SpecKVError(
            "assistant_ensemble_weight changes what the target says and speckv is lossless; "
            "leave it out, or detach(target) to use it"
        )
    feed_only_what_is_new(self, input_ids, model_kwargs.get("past_key_values"))
    return AdaptiveCandidateGenerator(
        found.draft,
        found.policy,
        found.report,
        direct=found.drafts_directly,
        generation_config=generation_config,
        logits_processor=logits_processor,
        attention_mask=model_kwargs.get("attention_mask"),
        vocabulary=_vocabulary(self),
    )

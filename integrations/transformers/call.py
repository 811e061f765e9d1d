"""One call of ``generate``: whether it is ours, and its arguments with our loop, or without the draft."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import (
    EosTokenCriteria,
    LogitsProcessorList,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)

from speckv.controller.errors import SpecKVError
from speckv.integrations.transformers.accept import stateless
from speckv.integrations.transformers.cache import NAMES, is_state
from speckv.integrations.transformers.target import DecodePlainly

PLAIN_MODES = ("greedy_search", "sample")
OTHER_SPECULATION = ("speculation_type", "use_mtp")
OWN_CRITERIA = (EosTokenCriteria, MaxLengthCriteria, MaxTimeCriteria, StopStringCriteria)
NOT_FOR_ROUNDS = ("output_attentions", "output_hidden_states")


class LeaveAlone(Exception):  # noqa: N818 - not an error: the call is transformers' own
    """The call asks for something that is not this pair's assisted generation: beams, prompt lookup and the like."""


def check_prepared(config: Any, input_ids: Any, keywords: dict[str, Any]) -> None:
    """Raise LeaveAlone, DecodePlainly, or SpecKVError if it is refused, for a call that ``generate`` has prepared.

    ``config`` is the generation configuration as it applies, ``input_ids`` (B, n), ``keywords`` the model's.
    """
    if config.get_generation_mode() not in PLAIN_MODES:
        raise LeaveAlone
    if any(getattr(config, name, None) for name in OTHER_SPECULATION):
        raise LeaveAlone
    if getattr(config, "assistant_ensemble_weight", None) is not None:
        raise SpecKVError(
            "assistant_ensemble_weight changes what the target says and speckv is lossless; "
            "leave it out, or detach(target) to use it"
        )
    for name in NOT_FOR_ROUNDS:
        if getattr(config, name, None):
            raise DecodePlainly(f"{name} is not collected over several tokens a forward")
    if keywords.get("inputs_embeds") is not None:
        raise DecodePlainly("inputs_embeds tell the draft nothing")


@dataclass(frozen=True)
class Call:
    """The arguments of one call, by name."""

    arguments: dict[str, Any]
    config: Any
    """The model's own ``generation_config``, which fills in what the call leaves open."""

    @classmethod
    def of(cls, stock: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        positional = dict(zip(_names(stock)[1:], args, strict=False))
        return cls({**positional, **kwargs}, model.generation_config)

    @property
    def assistant(self) -> Any:
        return self.arguments.get("assistant_model")

    @property
    def streamer(self) -> Any:
        return self.arguments.get("streamer")

    @property
    def cache(self) -> Any:
        """The cache that was handed in, if any."""
        return next((self.arguments[name] for name in NAMES if self.arguments.get(name) is not None), None)

    def check_several(self, config: Any, processors: LogitsProcessorList, criteria: StoppingCriteriaList) -> None:
        """Raise :class:`DecodePlainly` for what cannot be told, or asked, of several sequences of their own lengths."""
        if config.return_dict_in_generate:
            raise DecodePlainly(
                "scores and caches of several prompts go by columns, in which the sequences would differ"
            )
        if self.cache is not None:
            raise DecodePlainly("a cache was handed in for several prompts")
        if self.streamer is not None:
            raise DecodePlainly("a streamer is given several prompts at once")
        if len(stateless(processors)) != len(processors):
            raise DecodePlainly("a logits processor that may keep a state is given several prompts at once")
        if not all(type(one) in OWN_CRITERIA for one in criteria):
            raise DecodePlainly("a stopping criterion of one's own is given several prompts at once")

    def without_draft(self) -> dict[str, Any]:
        """The same call, decoded by the target alone."""
        return {name: value for name, value in self.arguments.items() if name != "assistant_model"}

    def with_loop(self, loop: Callable[..., Any]) -> dict[str, Any]:
        """The same call with ``loop`` as its ``custom_generate``.

        ``generate`` hands a ``custom_generate`` neither tokenizer nor streamer: what needs the one is made here, the
        other is the loop's. Raises :class:`LeaveAlone` or :class:`DecodePlainly`.
        """
        arguments = self.without_draft()
        if any(arguments.pop(name, None) is not None for name in ("custom_generate", "assistant_tokenizer")):
            raise LeaveAlone
        if arguments.pop("synced_gpus", None):
            raise DecodePlainly("synced_gpus needs as many forwards in every process")
        if self._setting("token_healing"):
            raise DecodePlainly("token_healing needs the tokenizer")
        if self._setting("prefill_chunk_size"):
            raise DecodePlainly("prefill_chunk_size feeds the prompt in parts")
        self._check_cache(arguments)
        strings = self._setting("stop_strings")
        tokenizer = arguments.get("tokenizer")
        if strings is not None:
            if tokenizer is None or self.config.stop_strings is not None:
                raise DecodePlainly("stop_strings without a tokenizer, or in the model's own generation_config")
            arguments.pop("stop_strings", None)
            if (given := arguments.get("generation_config")) is not None:
                arguments["generation_config"] = copy.copy(given)
                arguments["generation_config"].stop_strings = None
            ends = StopStringCriteria(tokenizer=tokenizer, stop_strings=strings)
            arguments["stopping_criteria"] = StoppingCriteriaList([*(arguments.get("stopping_criteria") or ()), ends])
        arguments.pop("streamer", None)
        return {**arguments, "custom_generate": loop}

    def _setting(self, name: str) -> Any:
        """The value of ``name`` by transformers' own order: the call's, its configuration's, the model's."""
        values = (self.arguments, *(vars(c) for c in (self.arguments.get("generation_config"), self.config) if c))
        return next((held[name] for held in values if held.get(name) is not None), None)

    def _check_cache(self, arguments: dict[str, Any]) -> None:
        """A cache handed in must belong to ids that are all there: the draft has to read them too."""
        cache = self.cache
        # A state is refused when all is prepared, as one is that was not handed in.
        if cache is None or is_state(cache) or not (held := cache.get_seq_length()):
            return
        ids = arguments.get("input_ids", arguments.get("inputs"))
        mask = arguments.get("attention_mask")
        count = 0 if ids is None else ids.shape[1]
        if count <= held or (mask is not None and mask.shape[-1] != count):
            raise DecodePlainly("a cache was handed in without the ids of all that it holds")


def check_processes(model: torch.nn.Module) -> None:
    """Raise :class:`DecodePlainly` where other processes take part in every forward of ``model``.

    Rounds are decided by timings, which differ by process, and all of them must run the same forwards.
    """
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    if several and _is_sharded(model):
        raise DecodePlainly("the target's weights are spread over processes, which must all run the same forwards")


def _is_sharded(model: torch.nn.Module) -> bool:
    from transformers.integrations import is_deepspeed_zero3_enabled
    from transformers.integrations.fsdp import is_fsdp_managed_module

    spread = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    return bool(spread or is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model))


@lru_cache(maxsize=64)
def _names(stock: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(stock).parameters)

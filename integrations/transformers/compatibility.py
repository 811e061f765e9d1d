"""What of transformers the hook relies on, in one list, with the versions it was tested with."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

import transformers
from transformers import DynamicCache, EosTokenCriteria, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.generation import GenerateDecoderOnlyOutput

from speckv.controller.errors import SpecKVError
from speckv.integrations.transformers.target import KEPT_BY_MODEL

TESTED_VERSIONS = ("5.19.0", "5.23.0", "5.24.0")

FUNCTIONS: tuple[tuple[Any, str, str], ...] = (
    (
        GenerationMixin,
        "generate",
        "inputs generation_config stopping_criteria synced_gpus assistant_model streamer custom_generate",
    ),
    (GenerationMixin, "prepare_inputs_for_generation", "input_ids next_sequence_length is_first_iteration"),
    (GenerationMixin, KEPT_BY_MODEL, "outputs model_kwargs num_new_tokens"),
    (GenerationConfig, "get_generation_mode", "assistant_model"),
    (DynamicCache, "__init__", "config"),
    (DynamicCache, "get_seq_length", ""),
    (DynamicCache, "activate_past_recording", ""),
    (DynamicCache, "get_mask_sizes", "query_length layer_idx"),
    (DynamicCache, "batch_select_indices", "indices"),
    (PreTrainedModel, "can_generate", ""),
    (PreTrainedModel, "get_decoder", ""),
    (PreTrainedModel, "get_output_embeddings", ""),
)
"""Functions that are called or wrapped, with the parameters that are passed to them. One is private: it is not called,
but looked at to see whether a model overrides it."""

SETTINGS = (
    "do_sample max_length return_dict_in_generate output_scores output_logits output_attentions output_hidden_states "
    "stop_strings token_healing prefill_chunk_size"
)
"""What is read of a generation configuration."""


def mismatches() -> list[str]:
    """What the installed transformers lacks of what the hook relies on; empty when all is there."""
    problems = []
    for owner, name, wanted in FUNCTIONS:
        function = getattr(owner, name, None)
        if function is None:
            problems.append(f"{owner.__name__}.{name} is gone")
        elif missing := set(wanted.split()) - set(inspect.signature(function).parameters):
            problems.append(f"{owner.__name__}.{name} no longer takes {', '.join(sorted(missing))}")
    fields = [field.name for field in dataclasses.fields(GenerateDecoderOnlyOutput)]
    config = transformers.LlamaConfig(num_hidden_layers=1)
    for owner, held, wanted in (
        (GenerationConfig, vars(GenerationConfig()), SETTINGS),
        (EosTokenCriteria, vars(EosTokenCriteria(eos_token_id=0)), "eos_token_id"),
        (DynamicCache, dir(DynamicCache(config=config)), "is_compileable is_croppable is_linear layers crop"),
        (GenerateDecoderOnlyOutput, fields, "sequences scores logits"),
    ):
        problems += [f"{owner.__name__}.{name} is gone" for name in _missing(wanted, held)]
    return problems


def _missing(wanted: str, held: Iterable[str]) -> list[str]:
    return sorted(set(wanted.split()) - set(held))


def check_transformers() -> None:
    """Raise SpecKVError when the installed transformers is not one the hook fits."""
    if problems := mismatches():
        raise SpecKVError(
            f"transformers {transformers.__version__} does not fit: {'; '.join(problems)}; "
            f"nothing was attached; versions that work: {', '.join(TESTED_VERSIONS)}"
        )

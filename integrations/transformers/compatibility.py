"""What of transformers the hook relies on, in one list, and whether a draft and a target belong together."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import transformers
from transformers import GenerationMixin, PreTrainedModel
from transformers.generation.candidate_generator import CandidateGenerator

from speckv.controller.errors import SpecKVError

TESTED_VERSIONS = "5.19.0 and 5.23.0"

# Every private or overridden symbol, with the parameters that are passed to it or taken from it.
RELIED_ON: tuple[tuple[Any, str, frozenset[str]], ...] = (
    (
        GenerationMixin,
        "_get_candidate_generator",
        frozenset(
            [
                "self",
                "generation_config",
                "input_ids",
                "inputs_tensor",
                "logits_processor",
                "model_kwargs",
                "assistant_model",
                "target_tokenizer",
                "assistant_tokenizer",
            ]
        ),
    ),
    (
        GenerationMixin,
        "_validate_generation_mode",
        frozenset({"self", "generation_mode", "generation_config", "generation_mode_kwargs"}),
    ),
    (
        GenerationMixin,
        "prepare_inputs_for_generation",
        frozenset({"self", "input_ids", "next_sequence_length", "past_key_values", "is_first_iteration"}),
    ),
    (CandidateGenerator, "get_candidates", frozenset({"self", "input_ids"})),
    (
        CandidateGenerator,
        "update_candidate_strategy",
        frozenset({"self", "input_ids", "scores", "num_matches"}),
    ),
    (transformers.DynamicCache, "crop", frozenset({"self"})),
    (transformers.DynamicCache, "activate_past_recording", frozenset({"self"})),
)


def mismatches() -> list[str]:
    """What the installed transformers lacks of what the hook relies on; empty when all is there."""
    problems = []
    for owner, name, wanted in RELIED_ON:
        symbol = f"{owner.__name__}.{name}"
        function = getattr(owner, name, None)
        if function is None:
            problems.append(f"{symbol} is gone")
        elif missing := wanted - set(inspect.signature(function).parameters):
            problems.append(f"{symbol} no longer takes {', '.join(sorted(missing))}")
    return problems


def check_transformers() -> None:
    """Raise SpecKVError when the installed transformers is not one the hook fits."""
    if problems := mismatches():
        raise SpecKVError(
            f"transformers {transformers.__version__} does not fit: {'; '.join(problems)}; "
            f"nothing was attached; versions that work: {TESTED_VERSIONS}"
        )


def check_pair(target: PreTrainedModel, draft: PreTrainedModel, same_tokenizer: bool | None) -> None:
    """Raise SpecKVError unless ``draft`` can propose tokens for ``target``.

    ``same_tokenizer``: True or False when the caller knows; None compares the vocabularies of the two models'
    folders where they can be read, and else takes equal vocabulary sizes for the same tokenizer, as transformers does.
    """
    if target is draft:
        raise SpecKVError("target and draft are one and the same model object; load the draft as a second model")
    if target.config.is_encoder_decoder or draft.config.is_encoder_decoder:
        raise SpecKVError("encoder-decoder models are not supported; use transformers' own assisted generation")
    if same_tokenizer is None:
        same_tokenizer = _same_vocabulary(target, draft)
    sizes = [int(model.config.get_text_config().vocab_size) for model in (target, draft)]
    if same_tokenizer is False:
        raise SpecKVError(
            f"target {_name(target)} and draft {_name(draft)} have different tokenizers; take a draft of the same "
            "family (transformers' universal assisted generation works without attach())"
        )
    if same_tokenizer is None and sizes[0] != sizes[1]:
        raise SpecKVError(
            f"vocabulary sizes differ (target {sizes[0]}, draft {sizes[1]}) and their tokenizers could not be found "
            "to compare; if it is one tokenizer, padded differently, say attach(..., same_tokenizer=True)"
        )


def _name(model: PreTrainedModel) -> str:
    return model.config.name_or_path or type(model).__name__


def _same_vocabulary(target: PreTrainedModel, draft: PreTrainedModel) -> bool | None:
    """Whether the two models' tokenizer files map the same tokens to the same ids; None when one is not at hand."""
    files = [_tokenizer_file(model) for model in (target, draft)]
    if files[0] is None or files[1] is None:
        return None
    if files[0] == files[1]:
        return True
    contents = [file.read_bytes() for file in files if file is not None]
    if contents[0] == contents[1]:
        return True
    try:
        vocabularies = [_token_ids(json.loads(content)) for content in contents]
    except (ValueError, KeyError, TypeError):
        return None
    return vocabularies[0] == vocabularies[1]


def _token_ids(tokenizer: dict[str, Any]) -> dict[str, int]:
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, list):  # unigram models list (token, score) pairs
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    return {**vocabulary, **{added["content"]: added["id"] for added in tokenizer.get("added_tokens", [])}}


def _tokenizer_file(model: PreTrainedModel) -> Path | None:
    name = model.config.name_or_path
    if not name:
        return None
    try:
        found = transformers.utils.cached_file(
            name, "tokenizer.json", local_files_only=True, _raise_exceptions_for_missing_entries=False
        )
    except OSError:
        return None
    return Path(found) if found else None

"""Whether a draft and a target belong together, and are what they are taken for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import PreTrainedModel

from speckv.controller.errors import SpecKVError

COMPILED = "_orig_mod"
"""Where ``torch.compile(model)`` keeps the model; its ``generate`` is the model's."""


def unwrapped(model: Any) -> Any:
    """The transformers model inside of what ``torch.compile`` or PEFT made of it; others are returned as they are.

    Both call the inner model's ``generate``, so that is what is attached to.
    """
    while not isinstance(model, PreTrainedModel):
        inner = getattr(model, COMPILED, None)
        if inner is None and hasattr(model, "get_base_model"):
            inner = model.get_base_model()
        if inner is None:
            break
        model = inner
    return model


def check_pair(target: PreTrainedModel, draft: PreTrainedModel, same_tokenizer: bool | None) -> None:
    """Raise SpecKVError unless ``draft`` can propose tokens for ``target``.

    ``same_tokenizer``: True or False when the caller knows; None compares the vocabularies of the two models'
    folders where they can be read, and else takes equal vocabulary sizes for the same tokenizer, as transformers does.
    """
    check_models(target, draft)
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


def check_models(target: Any, draft: Any) -> None:
    """Raise SpecKVError unless both generate text and their weights are there."""
    for role, model in (("target", target), ("draft", draft)):
        _check_model(role, model)


def _check_model(role: str, model: Any) -> None:
    kind = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        inside = "; give it the model inside, .module" if isinstance(getattr(model, "module", None), nn.Module) else ""
        raise SpecKVError(f"{role}: a {kind} is not a transformers model{inside}")
    if not model.can_generate() or model.get_output_embeddings() is None:
        raise SpecKVError(f"{role} {_name(model)}: a {kind} has no language-model head; load it as a causal LM")
    offloaded = any(parameter.device.type == "meta" for parameter in model.parameters())
    if offloaded and (role == "draft" or not hasattr(model, "hf_device_map")):
        raise SpecKVError(
            f"{role} {_name(model)}: some of its weights are not loaded (on the meta device); load it into memory"
        )

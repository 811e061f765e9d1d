"""A forward that calls a model's decoder and head directly, where that is exactly what the model itself does.

transformers' wrappers around both collect outputs that nobody asks for here, and cost an eighth of a small forward.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from speckv.integrations.transformers.cache import parameters

SAMPLE = 8
"""Tokens, spread over the vocabulary, that a model is tried with. One alone may have a row of zeros as embedding."""

TAKEN = frozenset({"input_ids", "attention_mask", "position_ids"})
"""What the decoder must take as its model does, and all that it is tried with."""

Forward = Callable[[dict[str, Any], int], tuple[Tensor, Any]]
"""From a forward's keyword arguments the logits (n, rows, V) after the last ``rows`` tokens fed, and the outputs."""

_tried: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def sample_ids(model: PreTrainedModel) -> Tensor:
    """(1, SAMPLE) ids to try ``model`` with."""
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    return torch.linspace(vocabulary // 3, vocabulary - 1, SAMPLE, device=model.device).long()[None, :]


def whole_forward(model: PreTrainedModel) -> Forward:
    """The model called as it is."""
    keeps = {"logits_to_keep"} & parameters(model.forward)

    def forward(inputs: dict[str, Any], rows: int) -> tuple[Tensor, Any]:
        outputs = model(**inputs, **dict.fromkeys(keeps, rows), return_dict=True)
        return outputs.logits[:, -rows:], outputs

    return forward


def forward_of(model: PreTrainedModel) -> Forward:
    """The fastest forward of ``model`` that gives the very same logits."""
    if is_wrapped(model) or not _is_direct(model):
        return whole_forward(model)
    decoder, head = _bare(model.get_decoder()), _bare(model.get_output_embeddings())

    def forward(inputs: dict[str, Any], rows: int) -> tuple[Tensor, Any]:
        outputs = decoder(**inputs)
        return head(outputs.last_hidden_state[:, -rows:]), outputs

    return forward


def is_wrapped(module: torch.nn.Module) -> bool:
    """Whether hooks hang on ``module``, or its forward was replaced: by offloading or torch.compile, say."""
    return "forward" in vars(module) or any((module._forward_hooks, module._forward_pre_hooks))


def _bare(module: torch.nn.Module) -> Callable[..., Any]:
    return module if is_wrapped(module) else partial(inspect.unwrap(type(module).forward), module)


def _is_direct(model: PreTrainedModel) -> bool:
    """Whether its logits are those of its head of its decoder's last states; found out once, by trying.

    Most causal language models are so, not those that cap or scale logits.
    """
    if model not in _tried:
        _tried[model] = _try_out(model)
    return _tried[model]


@torch.no_grad()
def _try_out(model: PreTrainedModel) -> bool:
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    if decoder is None or head is None or decoder is model or not parameters(decoder.forward) >= TAKEN:
        return False
    ids = sample_ids(model)
    positions, mask = torch.arange(SAMPLE, device=ids.device)[None, :], torch.ones_like(ids)
    mask[0, SAMPLE // 2] = 0  # what is made of a mask must be the same, too
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
    try:
        whole: Tensor = model(**inputs).logits
        direct: Tensor = _bare(head)(_bare(decoder)(**inputs).last_hidden_state)
    except Exception:  # whatever a forward does that was not meant to be called without its wrappers
        return False
    alike = whole.shape == direct.shape and whole.dtype == direct.dtype
    return alike and bool(torch.allclose(whole, direct, rtol=0.0, atol=0.0, equal_nan=True))

"""The target model in a round: fed through its own ``prepare_inputs_for_generation``, rolled back by its own cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel

from speckv.controller.errors import SpecKVError
from speckv.integrations.device import sent
from speckv.integrations.transformers.branches import can_branch, gather, tree_inputs
from speckv.integrations.transformers.cache import cache_name, is_state, parameters, rolls_back, stop_recording
from speckv.integrations.transformers.direct import forward_of, is_wrapped, whole_forward
from speckv.integrations.transformers.reach import Reach
from speckv.integrations.transformers.sequence import TokenSequence
from speckv.integrations.transformers.tree import Tree

KEPT_BY_MODEL = "_update_model_kwargs_for_generation"
"""A model class that overrides this keeps something of its own between forwards, which a round would not know of."""

TEXT_ONLY = frozenset({"attention_mask", "position_ids", "use_cache", "logits_to_keep", "token_type_ids"})
LIKE_THE_LAST = ("attention_mask", "position_ids", "token_type_ids")
BY_TOKEN = (*LIKE_THE_LAST, "mm_token_type_ids", "moe_mm_token_type_ids")


class DecodePlainly(Exception):  # noqa: N818 - not an error: the call is decoded without a draft
    """This call cannot be speculated on exactly; the message says why, as the end of "decoded plainly: …"."""


class TargetModel:
    """A target with the keyword arguments that ``generate`` prepared for it (``attention_mask``, the cache and others).

    ``private``: whether the caller is given nothing of what its forwards make. Raises :class:`DecodePlainly` where the
    model or its cache cannot be rolled back.
    """

    def __init__(self, model: PreTrainedModel, keywords: dict[str, Any], private: bool) -> None:
        kind, name = type(model), cache_name(keywords)
        if not keywords.get("use_cache", True):
            raise DecodePlainly("without a key/value cache there is nothing to roll back")
        cache = keywords[name] if name else None
        if cache is not None and not isinstance(cache, DynamicCache):
            raise DecodePlainly(f"a {type(cache).__name__} cannot be rolled back exactly")
        if name is None or cache is None or is_state(cache):
            raise DecodePlainly(f"{kind.__name__} keeps a state that cannot be rolled back")
        if getattr(kind, KEPT_BY_MODEL) is not getattr(GenerationMixin, KEPT_BY_MODEL):
            raise DecodePlainly(f"{kind.__name__} keeps more between its forwards than a cache")
        self.model, self.keywords, self.name = model, dict(keywords), name
        prepare: Any = model.prepare_inputs_for_generation
        self.prepare: Callable[..., dict[str, Any]] = prepare
        self.reach = Reach(model)
        self.fed = self.cache.get_seq_length()
        self.prompt = 0
        # What else a prompt brings, images say, is not to be mixed with drafted tokens.
        self.text_only = keywords.keys() <= TEXT_ONLY | {name}
        self.rolls_back = self._record()
        self.fed_as_text = False
        self.forward = whole_forward(model)
        # Spares an eighth of a small forward. What is made so can be neither trained on nor written to elsewhere, and
        # must not reach the caller or hooks.
        private = private and not any(is_wrapped(module) for module in model.modules())
        self.inference = private or torch.is_inference_mode_enabled()

    @property
    def cache(self) -> Cache:
        cache: Cache = self.keywords[self.name]
        return cache

    def room(self, lengths: Sequence[int]) -> int:
        """The most tokens to draft after sequences of ``lengths``."""
        if not self.prompt and not self.text_only:
            return 0
        (length,) = lengths
        return self.reach.room(length) if self.rolls_back else 0

    @property
    def branches(self) -> bool:
        """Whether the next verify may be of a tree with branches; of a chain it may be always."""
        return self.fed_as_text and self.rolls_back and "token_type_ids" not in self.keywords and can_branch(self.model)

    def verify(self, sequences: Sequence[TokenSequence], trees: Sequence[Tree]) -> Tensor:
        """(n, rows, V): of each of ``sequences`` the logits of what follows each row of its tree.

        The first call feeds all of the prompt that a cache handed in does not hold.
        """
        (one,), (tree,) = sequences, trees
        sequence = one.ids
        length, first = sequence.shape[1], not self.prompt
        if first:
            self.prompt = length
        inputs = self._tree_inputs(sequence, tree) if tree.branches else self._chain_inputs(sequence, tree, first)
        logits, outputs = self._forward(inputs, tree.rows)
        cache = outputs.get(self.name, self.cache)
        self.fed = length + len(tree.tokens)
        if first:
            self._check_length(cache, self.fed)
        if first or cache is not self.cache:  # some models begin a new one where their positions switch
            self.keywords[self.name] = cache
            self.rolls_back = self._record()
            self.fed_as_text = self._is_fed_as_text(sequence.device)
            direct = self.fed_as_text and "token_type_ids" not in inputs
            self.forward = (forward_of if direct else whole_forward)(self.model)
        return logits

    def keep(self, trees: Sequence[Tree], kept: Sequence[Sequence[int]]) -> None:
        """Of the ``trees`` just verified keep the rows ``kept`` of each, a path from row 0, and forget the rest.

        Where all are kept, layers with a window forget what left it.
        """
        (tree,), (rows,) = trees, kept
        if self.rolls_back:
            if rows[-1] != len(rows) - 1:
                gather(self.cache, rows, tree.rows)
            self.cache.crop(len(rows) - tree.rows)
            self.fed -= tree.rows - len(rows)

    def select(self, sequences: Sequence[int]) -> None:
        """Go on with these ``sequences`` alone, the others having ended; nothing to do where there is one."""

    def release(self) -> Cache:
        """The cache as plain decoding leaves it: every token but the last."""
        stop_recording(self.cache)
        return self.cache

    def _chain_inputs(self, sequence: Tensor, tree: Tree, first: bool) -> dict[str, Any]:
        inputs = self._keywords(sequence.shape[1] + len(tree.tokens))
        start = self.fed if self.fed_as_text else 0
        ids = sequence[:, start:]
        if tree.tokens:
            ids = torch.cat((ids, sent([tree.tokens], sequence.device, sequence.dtype)), dim=1)
        if self.fed_as_text:
            return _as_text(inputs, ids)
        new = None if first and not self.fed else ids.shape[1] - self.fed
        return self.prepare(ids, next_sequence_length=new, is_first_iteration=first, **inputs)

    def _tree_inputs(self, sequence: Tensor, tree: Tree) -> dict[str, Any]:
        inputs = self._keywords(sequence.shape[1])
        padding, positions = inputs.get("attention_mask"), inputs.get("position_ids")
        return inputs | tree_inputs(self.model, self.cache, sequence, tree, padding, positions)

    def _forward(self, inputs: dict[str, Any], rows: int) -> tuple[Tensor, Any]:
        inputs.pop("logits_to_keep", None)  # generate's own is for one row
        try:
            return self.forward(inputs, rows)
        except AssertionError as error:  # ProphetNet's way of saying that it takes one token at a time
            said = str(error).splitlines()[0][:100]
            raise SpecKVError(f"{type(self.model).__name__} cannot verify several tokens at once: {said}") from None

    def _check_length(self, cache: Cache, length: int) -> None:
        """The cache must hold the sequence and nothing else, or a round's places in it would be others than thought."""
        if cache.get_seq_length() == length:
            return
        if self.fed:  # too late to decode plainly: the cache handed in has been fed
            raise SpecKVError(f"{type(self.model).__name__} keeps other than the sequence in its cache; hand none in")
        raise DecodePlainly(f"{type(self.model).__name__} keeps other than the sequence in its cache")

    def _record(self) -> bool:
        """Whether the cache can be rolled back; if so it keeps from now on what that takes.

        Layers with a state know it only after the prompt.
        """
        if rolls_back(self.cache):
            self.cache.activate_past_recording()
            return True
        return False

    def _is_fed_as_text(self, device: torch.device) -> bool:
        """Whether all that ``prepare_inputs_for_generation`` does after the prompt is what :func:`_as_text` does."""
        prepare = getattr(self.prepare, "__func__", None)
        return (
            prepare is GenerationMixin.prepare_inputs_for_generation
            and self.text_only
            and self.rolls_back
            and not self.cache.is_compileable  # else it makes the mask
            and "cache_position" not in parameters(self.model.forward)  # remote code
            and device == self.model.device
        )

    def _keywords(self, length: int) -> dict[str, Any]:
        """The prepared keywords, those by token going on from the prompt's last to ``length`` as in ``generate``."""
        keywords = dict(self.keywords)
        for name in BY_TOKEN:
            given = keywords.get(name)
            if given is None:
                continue
            if given.shape[-1] < length:  # extended for some rounds to come
                given = self.keywords[name] = _extended(name, given, 2 * length)
            keywords[name] = given[..., :length]
        return keywords


def _as_text(keywords: dict[str, Any], new: Tensor) -> dict[str, Any]:
    """What ``GenerationMixin``'s own makes of the ``keywords`` of a sequence, and of its ``new`` ids (1, m).

    To find out that there is nothing else takes it a tenth of a small forward.
    """
    inputs = {name: value for name, value in keywords.items() if value is not None or name not in LIKE_THE_LAST}
    inputs["input_ids"] = new
    for name in {"input_ids", "position_ids", "token_type_ids"} & inputs.keys():
        inputs[name] = inputs[name][..., -new.shape[1] :].clone(memory_format=torch.contiguous_format)
    return inputs


def _extended(name: str, given: Tensor, length: int) -> Tensor:
    last = given[..., -1:] if name in LIKE_THE_LAST else torch.zeros_like(given[..., -1:])
    added = length - given.shape[-1]
    more = last.expand(*last.shape[:-1], added)
    if name == "position_ids":
        more = more + torch.arange(1, added + 1, device=given.device)
    return torch.cat((given, more), dim=-1)

"""Tiny random models and test policies for the transformers hook."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from speckv.controller.policy import BEST, SIBLINGS, Level, Policy, Round, Siblings
from speckv.integrations.models.loading import perturbed

transformers.logging.set_verbosity_error()

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 512,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": lambda **k: LlamaForCausalLM(LlamaConfig(**{**TINY, **k})),
    "qwen2": lambda **k: Qwen2ForCausalLM(Qwen2Config(**{**TINY, **k})),
    "mistral": lambda **k: MistralForCausalLM(MistralConfig(**{**TINY, "sliding_window": 16, **k})),
}


def tiny(family: str = "llama", seed: int = 0, **config: Any) -> Any:
    torch.manual_seed(seed)
    return FAMILIES[family](**config).eval()


def tiny_pair(family: str = "llama", noise: float = 0.1, **config: Any) -> tuple[Any, Any]:
    """A tiny target and a draft that agrees with it on a part of the tokens."""
    target = tiny(family, **config)
    return target, perturbed(target, noise)


def prompt(length: int = 12, seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 256, (1, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def padded(lengths: list[int], longest: int = 0, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random prompts of these ``lengths``, padded on the left to ``longest`` or to the longest of them."""
    ids = torch.randint(1, 256, (len(lengths), max(longest, *lengths)), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    for row, length in enumerate(lengths):
        ids[row, : ids.shape[1] - length], mask[row, : ids.shape[1] - length] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def greedy(model: Any, inputs: Any, tokens: int = 40, **more: Any) -> Any:
    return model.generate(**inputs, **{"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0, **more})


class RandomPolicy(Policy):
    """At most 0 … ``most`` levels, drawn every round, and random stops: what any policy could do and worse.

    A stop verifies what there is, or leaves out the newest level. A policy that is asked after the first level only
    (not ``per_level``) answers any number; one that is never asked (not ``asks``) drafts what it said. Each sibling is
    verified with the probability ``siblings``, where that is small only in some rounds.
    """

    def __init__(
        self,
        seed: int,
        most: int = 8,
        stop: float = 0.2,
        per_level: bool = True,
        asks: bool = True,
        siblings: float = 0.3,
    ) -> None:
        self.random = random.Random(seed)
        self.most, self.stop, self.per_level, self.asks = most, stop, per_level, asks
        self.siblings = siblings
        self.rounds: list[Round] = []

    def begin(self, this: Round, room: int) -> int:
        assert room >= 0
        self.limit = min(self.random.randint(0, self.most), room)
        return self.limit

    def deepen(self, this: Round) -> int:
        assert self.asks and (self.per_level or len(this.levels) == 1)
        assert len(this.levels) <= self.limit
        check_level(this.levels[-1])
        if not self.per_level:
            return self.random.randint(0, self.limit)
        if self.random.random() >= self.stop:
            return self.limit
        return len(this.levels) - self.random.randint(0, 1)

    def choose(self, this: Round) -> Siblings | None:
        if self.random.random() > 2 * self.siblings:
            return None
        drawn = [self.random.random() for _ in range(this.size * this.gamma * SIBLINGS)]
        return np.array(drawn).reshape(this.size, this.gamma, SIBLINGS) < self.siblings

    def observe(self, this: Round) -> None:
        self.rounds.append(this)


def check_level(level: Level) -> None:
    """Check that ``level`` may be one: of every request a possible entropy, and descending probabilities."""
    assert level.shape[1:] == (1 + BEST,)
    for entropy, *best in level.tolist():
        assert entropy > -1e-3 and sum(best) <= 1.0001
        assert best == sorted(best, reverse=True) and best[0] > 0 and best[-1] >= 0


MIXED = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1, "num_hidden_layers": 2}


def gpt2(**config: Any) -> Any:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=256, n_positions=256, **config))


KINDS = {
    "full": lambda **k: tiny_pair("llama", 0.1, **k)[0],
    "sliding": lambda **k: MistralForCausalLM(MistralConfig(**{**TINY, "sliding_window": 16, **k})),
    "mixed": lambda **k: Qwen2ForCausalLM(Qwen2Config(**{**TINY, **MIXED, **k})),
    "learned positions": gpt2,
}


def pair(kind: str, attention: str, noise: float) -> tuple[Any, Any]:
    torch.manual_seed(0)
    # Large enough weights that what a row sees decides what it says.
    target = KINDS[kind](attn_implementation=attention, initializer_range=0.15).eval()
    target.generation_config.eos_token_id = None
    return target, perturbed(target, noise)

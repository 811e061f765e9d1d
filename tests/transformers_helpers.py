"""Tiny random models and test policies for the transformers hook."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from speckv.controller.policy import Policy, Round
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


def greedy(model: Any, inputs: Any, tokens: int = 40, **more: Any) -> Any:
    return model.generate(**inputs, **{"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0, **more})


class RandomPolicy(Policy):
    """γ drawn from 0 … ``most`` every round, and, per token, a random stop: what any policy could do and worse."""

    def __init__(self, seed: int, most: int = 8, stop: float = 0.2, per_token: bool = True) -> None:
        self.random = random.Random(seed)
        self.most, self.stop, self.per_token = most, stop, per_token
        self.rounds: list[Round] = []

    def begin(self, room: int) -> int:
        assert room >= 0
        return min(self.random.randint(0, self.most), room)

    def more(self, entropies: Sequence[float], confidences: Sequence[float]) -> bool:
        assert len(entropies) == len(confidences) >= 1
        assert all(h > -1e-3 for h in entropies) and all(0 < p <= 1.0001 for p in confidences)
        return self.random.random() >= self.stop

    def observe(self, outcome: Round) -> None:
        self.rounds.append(outcome)

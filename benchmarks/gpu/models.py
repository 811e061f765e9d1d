"""Models with random weights, made on the device: what a forward takes does not depend on the weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 256},
    "small": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "vocab_size": 256},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 128_256},
    "8b": {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "vocab_size": 128_256},
}
"""The large ones are Llama 3's of 1B and 8B."""

HEAD = 64
"""Size of an attention head of the small ones; of the large ones as Llama has them."""


def config(size: str, **more: Any) -> LlamaConfig:
    """Llama's of a size in SIZES; no token ends a sequence."""
    shape = SIZES[size]
    large = shape["hidden_size"] >= 2048
    heads = 32 if large else shape["hidden_size"] // (HEAD // 2)
    grouped = 8 if large else heads
    ends = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": 0}
    return LlamaConfig(
        **{**shape, **ends, "max_position_embeddings": 8192, **more},
        num_attention_heads=heads,
        num_key_value_heads=grouped,
        tie_word_embeddings=size == "1b",
    )


def make(size: str, device: torch.device, dtype: torch.dtype, seed: int = 0, **more: Any) -> LlamaForCausalLM:
    """One on ``device``, the same for the same seed."""
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config(size, **more))
            model.eval()
            return model
    finally:
        torch.set_default_dtype(before)

"""Tiny random models with a byte tokenizer, saved as folders that SGLang can serve, and requests to send to them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from speckv.integrations.models.loading import perturbed

EOS = 2
CONTEXT = 512
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"

Request = tuple[list[int], int]
"""Prompt ids, and how many tokens to generate."""


def byte_tokenizer() -> Any:
    """One token per byte, after <unk>, <s> and </s>."""
    names = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    return fast


def save_pair(folder: Path, noise: float = 0.02) -> tuple[Path, Path]:
    """Folders of a target and of a draft that agrees with it on a part of the tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=259,
        max_position_embeddings=2 * CONTEXT,
        bos_token_id=1,
        eos_token_id=EOS,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    target: Any = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        target.lm_head.weight[EOS] *= 1.6  # so that some texts end
    tokenizer = byte_tokenizer()
    for name, model in (("target", target), ("draft", perturbed(target, noise))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder / "target", folder / "draft"


def requests(count: int, seed: int = 0) -> list[Request]:
    """Prompts of 1 to 60 tokens, a third of them behind one of two shared prefixes, and 1 to 40 tokens to generate."""
    generator = random.Random(seed)

    def ids(length: int) -> list[int]:
        return [generator.randrange(3, 259) for _ in range(length)]

    shared = [ids(40), ids(90)]
    made: list[Request] = []
    for i in range(count):
        prompt = ids(generator.randrange(1, 60))
        if i % 3 == 0:
            prompt = generator.choice(shared) + prompt
        made.append((prompt, generator.randrange(1, 40)))
    return made

"""Tiny random models with a byte tokenizer, saved as folders that SGLang can serve, and requests to send to them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from speckv.integrations.models.loading import perturbed

EOS = 2
CONTEXT = 512
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"

Request = tuple[list[int], int]
"""Prompt ids, and how many tokens to generate."""


SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 259,
    "max_position_embeddings": 2 * CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}
NORMS = ("token_layernorm", "hidden_layernorm", "final_layernorm")


def _config(**more: Any) -> LlamaConfig:
    return LlamaConfig(**SIZES, **more)


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
    target: Any = LlamaForCausalLM(_config(num_hidden_layers=2)).eval()
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


def save_head_pair(folder: Path) -> tuple[Path, Path]:
    """Folders of a target of four layers and of a random EAGLE-3 head, which knows two thirds of its tokens.

    What is accepted of it is so by chance, which with siblings is in one round of twelve or so.
    """
    from speckv.benchmarks.eagle3.head import Head

    torch.manual_seed(0)
    target: Any = LlamaForCausalLM(_config(num_hidden_layers=4)).eval()
    with torch.no_grad():
        target.lm_head.weight[EOS] *= 1.6
    target.save_pretrained(folder / "target")
    byte_tokenizer().save_pretrained(folder / "target")
    Head.of(target, torch.randperm(259)[:173].sort().values).save(folder / "head")
    return folder / "target", folder / "head"


def save_mtp(folder: Path) -> tuple[Path, Path]:
    """A random MiMo: a Qwen2 with a layer for the token after next, in one folder, which is target and draft."""
    torch.manual_seed(0)
    config = Qwen2Config(**SIZES, num_hidden_layers=2, architectures=["MiMoForCausalLM"], num_nextn_predict_layers=1)
    target: Any = Qwen2ForCausalLM(config).eval()
    layer: Any = Qwen2ForCausalLM(config).model.layers[0]
    own = {f"model.mtp_layers.0.{name}": value for name, value in layer.state_dict().items()}
    hidden = SIZES["hidden_size"]
    own |= {f"model.mtp_layers.0.{name}.weight": torch.ones(hidden) for name in NORMS}
    own["model.mtp_layers.0.input_proj.weight"] = 0.2 * torch.randn(hidden, 2 * hidden)
    target.save_pretrained(folder)
    weights = {name: value.contiguous() for name, value in (target.state_dict() | own).items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config.architectures = ["MiMoForCausalLM"]
    config.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder, folder

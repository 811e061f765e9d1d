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
    return LlamaConfig(**{**SIZES, **more})


def _steady(model: Any) -> Any:
    """Its layers add little to the embedding: the next token is often one of the last one's four likeliest."""
    with torch.no_grad():
        model.model.embed_tokens.weight *= 5.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= 0.1
            layer.mlp.down_proj.weight *= 0.1
        model.lm_head.weight[EOS] *= 1.6
    return model.eval()


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
    """Folders of a steady target and of an EAGLE-3 head that knows two thirds of its tokens.

    The head attends to its own place and hands on the token there: it is right as often as the target is steady.
    """
    from speckv.benchmarks.eagle3.head import Head

    torch.manual_seed(0)
    target = _steady(LlamaForCausalLM(_config(num_hidden_layers=4, num_key_value_heads=4)))
    target.save_pretrained(folder / "target")
    byte_tokenizer().save_pretrained(folder / "target")
    head = Head.of(target, torch.randperm(259)[:173].sort().values)
    layer, embedding = head.midlayer, torch.eye(SIZES["hidden_size"], 2 * SIZES["hidden_size"])
    with torch.no_grad():
        for projection, scale in (
            (layer.self_attn.q_proj, 2.0),
            (layer.self_attn.k_proj, 2.0),
            (layer.self_attn.v_proj, 1.0),
        ):
            projection.weight.copy_(scale * embedding)
        layer.self_attn.o_proj.weight.copy_(torch.eye(SIZES["hidden_size"]))
        for small in (head.fc, layer.mlp.down_proj):
            small.weight *= 0.3
    head.save(folder / "head")
    return folder / "target", folder / "head"


def save_mtp(folder: Path) -> tuple[Path, Path]:
    """A steady MiMo: a Qwen2 with a layer for the token after next, in one folder, which is target and draft."""
    torch.manual_seed(0)
    config = Qwen2Config(**SIZES, num_hidden_layers=2, architectures=["MiMoForCausalLM"], num_nextn_predict_layers=1)
    target = _steady(Qwen2ForCausalLM(config))
    layer: Any = _steady(Qwen2ForCausalLM(config)).model.layers[0]
    own = {f"model.mtp_layers.0.{name}": value for name, value in layer.state_dict().items()}
    hidden = SIZES["hidden_size"]
    own |= {f"model.mtp_layers.0.{name}.weight": torch.ones(hidden) for name in NORMS}
    # The features and then the token.
    own["model.mtp_layers.0.input_proj.weight"] = torch.cat((0.02 * torch.randn(hidden, hidden), torch.eye(hidden)), 1)
    target.save_pretrained(folder)
    weights = {name: value.contiguous() for name, value in (target.state_dict() | own).items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config.architectures = ["MiMoForCausalLM"]
    config.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder, folder

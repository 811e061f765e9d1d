"""An EAGLE-3 head in torch: one decoder layer over the target's features, as SGLang's ``LlamaForCausalLMEagle3``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

STEPS = 4
"""Of drafting that are trained: the head's own features stand for the target's after the first."""


class Attention(nn.Module):
    """Over the embedding and the features of a position, side by side."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = config.hidden_size // self.heads
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(2 * config.hidden_size, heads * self.width, bias=False)
            for heads in (self.heads, self.kv_heads, self.kv_heads)
        )
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], past: list[tuple[Tensor, Tensor]]) -> Tensor:
        """``x``: (B, L, 2 · hidden) at one step; ``past`` are keys and values of the steps before, and grows by one.

        A position sees all positions up to itself at the first step, and only itself at each later one: what it has
        drafted after that position.
        """
        size, length, _ = x.shape
        q, k, v = (
            of(x).view(size, length, -1, self.width).transpose(1, 2) for of in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, *rotary)
        groups = self.heads // self.kv_heads
        past.append((k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)))
        scale, (first_k, first_v) = self.width**-0.5, past[0]
        hidden = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        scores = [(q @ first_k.transpose(2, 3) * scale).masked_fill(hidden, float("-inf"))]
        scores += [(q * later_k).sum(-1, keepdim=True) * scale for later_k, _ in past[1:]]
        weights = torch.cat(scores, -1).softmax(-1)
        mixed = weights[..., :length] @ first_v
        for step, (_, later_v) in enumerate(past[1:]):
            mixed = mixed + weights[..., length + step, None] * later_v
        given: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(size, length, -1))
        return given


class Layer(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(config), LlamaMLP(config)
        self.hidden_norm, self.input_layernorm, self.post_attention_layernorm = (
            LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps) for _ in range(3)
        )

    def forward(self, embeds: Tensor, features: Tensor, rotary: Any, past: Any) -> Tensor:
        x = torch.cat((self.input_layernorm(embeds), self.hidden_norm(features)), -1)
        x = features + self.self_attn(x, rotary, past)
        given: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return given


class Head(nn.Module):
    """``layers`` are those of the target whose output is read, ``known`` (D,) the target's ids of its vocabulary."""

    def __init__(self, config: Any, layers: list[int], known: Tensor) -> None:
        super().__init__()
        self.config, self.layers, self.known = config, layers, known
        self.midlayer = Layer(config)
        self.fc = nn.Linear(len(layers) * config.hidden_size, config.hidden_size, bias=False)
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, len(known), bias=False)
        self.rotary = LlamaRotaryEmbedding(config)

    @classmethod
    def of(cls, target: Any, known: Tensor, layers: list[int] | None = None) -> Head:
        """An untrained one for ``target``, a Llama of four layers or more."""
        count = target.config.num_hidden_layers
        config = LlamaConfig(**{**target.config.to_dict(), "num_hidden_layers": 1, "tie_word_embeddings": False})
        made = cls(config, layers or sorted({1, count // 2 - 1, count - 4} if count > 6 else {0, 1, 2}), known)
        with torch.no_grad():
            made.lm_head.weight.copy_(target.lm_head.weight[known])
        return made

    def drafted(self, embeds: Tensor, features: Tensor) -> list[Tensor]:
        """Logits (B, L − j, D) of step j = 0 … STEPS − 1 from ``embeds`` (B, L, hidden) of the tokens one ahead.

        ``features``: (B, L, layers · hidden), the target's. Row i of step j is about the token at i + 2 + j.
        """
        length, logits = embeds.shape[1], list[Tensor]()
        x, past = self.fc(features), list[tuple[Tensor, Tensor]]()
        for step in range(min(STEPS, length)):
            ahead = F.pad(embeds[:, step:], (0, 0, 0, step))
            places = torch.arange(step, length + step, device=embeds.device)[None]
            x = self.midlayer(ahead, x, self.rotary(x, places), past)
            logits.append(self.lm_head(self.norm(x))[:, : length - step])
        return logits

    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """As a model folder that SGLang serves with ``--speculative-algorithm EAGLE3``."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.to(dtype).contiguous() for name, value in self.state_dict().items()}
        weights["d2t"] = self.known - torch.arange(len(self.known))
        save_file(weights, folder / "model.safetensors")
        self.config.architectures = ["LlamaForCausalLMEagle3"]
        self.config.draft_vocab_size = len(self.known)
        self.config.eagle_config = {"eagle_aux_hidden_state_layer_ids": self.layers}
        self.config.dtype = dtype
        self.config.save_pretrained(folder)

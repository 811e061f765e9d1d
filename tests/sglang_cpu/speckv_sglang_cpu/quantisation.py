"""bitsandbytes' int8 and nf4 weights on a CPU: SGLang says "cuda" for where they are, and knows no CPU layout."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor


def _on_cpu(states: type) -> None:
    """What is told to be on a GPU is here instead."""
    original = states.from_dict.__func__  # type: ignore[attr-defined]

    def from_dict(cls: type, saved: dict[str, Any], device: Any) -> Any:
        return original(cls, saved, torch.device("cpu"))

    states.from_dict = classmethod(from_dict)  # type: ignore[attr-defined]


def _pack(model: Any) -> None:
    """Have the 4-bit weights by shard; where bitsandbytes has a CPU kernel, in its layout, as its own module does."""
    from bitsandbytes.functional import _convert_weight_packed_for_cpu, has_avx512bf16

    for weight in model.parameters():
        if getattr(weight, "use_bitsandbytes_4bit", False):
            shards = []
            for index, state in sorted(weight.bnb_quant_state.items()):
                first, last = weight.bnb_shard_offsets[index : index + 2].tolist()
                shard = weight.data[first:last]
                shards.append(_convert_weight_packed_for_cpu(shard, state) if has_avx512bf16() else (shard, state))
            weight.packed = shards


def _matmul(rows: Tensor, weight: Tensor, state: Any) -> Tensor:
    from bitsandbytes import matmul_4bit
    from bitsandbytes.functional import dequantize_4bit, has_avx512bf16

    if has_avx512bf16():
        return matmul_4bit(rows, weight, state)  # type: ignore[no-any-return]
    return torch.nn.functional.linear(rows, dequantize_4bit(weight, state).to(rows.dtype))


def _apply(original: Any, method: Any, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
    if not hasattr(layer.weight, "packed"):
        return original(method, layer, x, bias)  # type: ignore[no-any-return]
    rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
    out = torch.cat([_matmul(rows, weight, state) for weight, state in layer.weight.packed], dim=-1)
    out = out.to(x.dtype).view(*x.shape[:-1], -1)
    return out if bias is None else out + bias


def register() -> None:
    from sglang.srt.utils import is_cpu

    if not is_cpu():
        return
    from bitsandbytes.functional import QuantState
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    def load(original: Any, loader: Any, config: Any, model: Any) -> None:
        original(loader, config, model)
        _pack(model)

    # LLM.int8() says at every call that it casts to float16, which is how it works.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    _on_cpu(QuantState)
    HookRegistry.register("sglang.srt.model_loader.loader.BitsAndBytesModelLoader._load_weights", load, HookType.AROUND)
    HookRegistry.register(
        "sglang.srt.layers.quantization.bitsandbytes.BitsAndBytesLinearMethod._apply_4bit_weight",
        _apply,
        HookType.AROUND,
    )

"""bfloat16 on a CPU that has no instructions for it, where torch multiplies such matrices several times slower.

Instructions for bfloat16 sum the products in float32 and round once at the end, and so does what is put in their place
here: a float32 product of the same bfloat16 values, rounded to bfloat16. It differs by no more than the order of the
sums, in which any two CPUs differ. The weights' float32 copies take twice the memory of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from speckv.benchmarks.common.machine import lacks_bf16

NATIVE, EMULATED = "native", "bf16 emulated in float32"
ROWS = 16
"""What weights are packed for; other numbers of rows are multiplied by them as well."""

Product = Callable[[Tensor], Tensor]


def arithmetic() -> str:
    """How bfloat16 is to be computed on this machine's CPU: NATIVE, or EMULATED where it is known to lack it."""
    return EMULATED if lacks_bf16() else NATIVE


def emulate(model: PreTrainedModel) -> PreTrainedModel:
    """Have every bfloat16 linear layer of ``model`` on a CPU, dense or of bitsandbytes, compute as told above."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer.weight.device.type == "cpu" and (forward := _forward(layer)):
            layer.forward = forward  # type: ignore[assignment, method-assign]
    return model


def _forward(layer: nn.Linear) -> Product | None:
    kind = type(layer).__name__
    if kind == "Linear8bitLt":
        return partial(_int8, layer, _product(layer.weight.data, None))
    if kind == "Linear4bit":
        from bitsandbytes.functional import dequantize_4bit

        # As bitsandbytes does at every call, but on CPUs with the instructions, for which it rounds the scales as well.
        packed: Any = layer.weight
        dense = dequantize_4bit(packed.data, packed.quant_state).bfloat16()
        return partial(_dense, _product(dense, layer.bias))
    if layer.weight.dtype == torch.bfloat16:
        return partial(_dense, _product(layer.weight.data, layer.bias))
    return None


def _product(weight: Tensor, bias: Tensor | None) -> Product:
    """``linear`` in float32 with ``weight`` packed once, which is up to twice as fast for a few rows."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.float(), ROWS)
    wide = None if bias is None else bias.data.float()
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.float(), packed, wide, "none", [], "")


def _dense(product: Product, x: Tensor) -> Tensor:
    return product(x).bfloat16()


def _int8(layer: Any, product: Product, x: Tensor) -> Tensor:
    """LLM.int8(). Sums of the int8 products are whole numbers, exact in float32 below 2²⁴.

    Columns of ``x`` that have an outlier in any row are multiplied in bfloat16, by weights dequantised to it.
    """
    rows, scales = x.reshape(-1, x.shape[-1]), layer.weight.SCB
    ints, row_scales, outliers = torch.ops.bitsandbytes.int8_vectorwise_quant(rows.half(), layer.state.threshold)
    sums = product(ints).int()
    out = torch.ops.bitsandbytes.int8_mm_dequant(sums, row_scales, scales, dtype=torch.bfloat16, bias=layer.bias)
    if outliers is not None and outliers.numel():
        columns = torch.ops.bitsandbytes.int8_vectorwise_dequant(layer.weight.data[:, outliers].contiguous(), scales)
        out = (out.float() + rows[:, outliers].float() @ columns.bfloat16().float().T).bfloat16()
    answers: Tensor = out.reshape(*x.shape[:-1], -1)
    return answers

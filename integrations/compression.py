"""Which compression level a loaded model has, read from its own configuration."""

from __future__ import annotations

from typing import Any

from speckv.controller.errors import SpecKVError
from speckv.controller.features import compression_level

FOUR_BIT_METHODS = frozenset({"gptq", "awq", "gguf", "hqq", "auto-round", "autoround"})


def detect_level(config: Any) -> int:
    """Level 0, 1 or 2 (fp16, int8, nf4) of a model ``config``; any 4-bit format counts as nf4.

    Raises SpecKVError for a quantisation whose bits cannot be read, naming the remedy.
    """
    quantization = getattr(config, "quantization_config", None)
    if quantization is None:
        return compression_level("fp16")
    get = (
        quantization.get
        if isinstance(quantization, dict)
        else lambda name, default=None: getattr(quantization, name, default)
    )
    if get("load_in_8bit"):
        return compression_level("int8")
    if get("load_in_4bit"):
        return compression_level("nf4")
    method = str(getattr(get("quant_method"), "value", get("quant_method")) or "").lower()
    bits = get("bits") or get("nbits") or get("w_bit") or (4 if method in FOUR_BIT_METHODS else None)
    if bits in (2, 3, 4):
        return compression_level("nf4")
    if bits == 8 or "fp8" in method or "int8" in method:
        return compression_level("int8")
    raise SpecKVError(
        f"quantization method {method or 'unknown'}: its bits cannot be read; say compression=int8 or nf4"
    )

"""Reading the compression level from a model's own configuration."""

from __future__ import annotations

import enum
from types import SimpleNamespace
from typing import Any

import pytest

from speckv.controller.errors import SpecKVError
from speckv.integrations.compression import detect_level


class Method(str, enum.Enum):  # noqa: UP042 - as transformers has it
    BITS_AND_BYTES = "bitsandbytes"
    GPTQ = "gptq"
    AWQ = "awq"
    FP8 = "fp8"


def bitsandbytes(bits: int) -> dict[str, Any]:
    return {
        "quant_method": Method.BITS_AND_BYTES,
        "load_in_8bit": bits == 8,
        "load_in_4bit": bits == 4,
        "_load_in_8bit": bits == 8,
        "bnb_4bit_quant_type": "nf4",
    }


@pytest.mark.parametrize(
    ("quantization", "level"),
    [
        (bitsandbytes(8), 1),
        (bitsandbytes(4), 2),
        ({"quant_method": Method.GPTQ, "bits": 4}, 2),
        ({"quant_method": "gptq", "bits": 3}, 2),
        ({"quant_method": "gptq", "bits": 8}, 1),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 2),
        ({"quant_method": Method.AWQ}, 2),
        ({"quant_method": "awq", "w_bit": 4}, 2),
        ({"quant_method": "hqq", "nbits": 4}, 2),
        ({"quant_method": "gguf"}, 2),
        ({"quant_method": Method.FP8}, 1),
        ({"quant_method": "fbgemm_fp8"}, 1),
    ],
)
@pytest.mark.parametrize("as_object", [False, True], ids=["dict", "object"])
def test_levels(quantization: dict[str, Any], level: int, as_object: bool) -> None:
    given = SimpleNamespace(**quantization) if as_object else quantization
    assert detect_level(SimpleNamespace(quantization_config=given)) == level


def test_no_quantization_is_level_0() -> None:
    assert detect_level(SimpleNamespace()) == 0
    assert detect_level(SimpleNamespace(quantization_config=None)) == 0


@pytest.mark.parametrize("quantization", [{}, {"quant_method": "vptq"}, {"quant_method": "aqlm", "bits": 16}])
def test_an_unreadable_one_is_named_with_the_remedy(quantization: dict[str, Any]) -> None:
    with pytest.raises(SpecKVError) as refusal:
        detect_level(SimpleNamespace(quantization_config=quantization))
    method = quantization.get("quant_method", "unknown")
    assert f"quantization method {method}: " in str(refusal.value)
    assert "compression=" in str(refusal.value)

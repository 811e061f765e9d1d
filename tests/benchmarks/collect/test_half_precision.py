"""bfloat16 as emulated agrees with torch's own and with bitsandbytes', to bfloat16's rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from speckv.benchmarks.collect.half_precision import EMULATED, NATIVE, arithmetic, emulate
from speckv.benchmarks.common import machine


def layer(kind: str) -> nn.Linear:
    torch.manual_seed(0)
    dense = nn.Linear(256, 64).bfloat16()
    if kind == "dense":
        return dense.requires_grad_(False)
    bnb = pytest.importorskip("bitsandbytes")
    if kind == "int8":
        made = bnb.nn.Linear8bitLt(256, 64, has_fp16_weights=False, threshold=6.0)
    else:
        made = bnb.nn.Linear4bit(256, 64, quant_type="nf4", compute_dtype=torch.bfloat16)
    made.load_state_dict(dense.state_dict())
    return made.bfloat16().to("cpu").eval().requires_grad_(False)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["dense", "int8", "nf4"])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("outlier", [False, True])
def test_layers_agree(kind: str, rows: int, outlier: bool) -> None:
    x = torch.randn(1, rows, 256).bfloat16()
    if outlier:
        x[0, -1, 3] = 9.0
    plain = layer(kind)
    expected = plain(x)
    emulated = emulate(nn.Sequential(layer(kind)))(x)  # type: ignore[arg-type]
    assert emulated.dtype == torch.bfloat16 and emulated.shape == expected.shape
    torch.testing.assert_close(emulated, expected, rtol=2**-7, atol=2**-8)
    if kind != "nf4" or arithmetic() == EMULATED:  # else bitsandbytes has a kernel that rounds the scales as well
        assert (emulated == expected).float().mean() > 0.9


def test_other_formats_are_left_alone() -> None:
    wide = nn.Linear(8, 8)
    emulate(nn.Sequential(wide))  # type: ignore[arg-type]
    assert "forward" not in vars(wide)


@pytest.mark.parametrize(
    ("formats", "expected"),
    [("avx2", EMULATED), ("avx2 avx512f", EMULATED), ("avx2 avx512f avx512_bf16", NATIVE), ("", NATIVE)],
)
def test_only_a_cpu_known_to_lack_it_is_helped(monkeypatch: pytest.MonkeyPatch, formats: str, expected: str) -> None:
    monkeypatch.setattr(machine, "machine", lambda: {"formats": formats})
    assert arithmetic() == expected

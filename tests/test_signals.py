"""The signals equal a float64 reference, whatever the logits' dtype, size and masking."""

from __future__ import annotations

import math

import pytest
import torch

from speckv.integrations.signals import pack, unpack


def reference(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Entropy (nats) and top-1 probability of each row in float64, from the very values given."""
    p = logits.double().softmax(-1)
    return torch.special.entr(p).sum(-1), p.amax(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocabulary", [2, 256, 151_936])
@pytest.mark.parametrize("spread", [0.0, 2.5, 30.0])
def test_float64_reference(dtype: torch.dtype, vocabulary: int, spread: float) -> None:
    logits = (torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(0)) * spread).to(dtype)
    tokens = torch.arange(4)[:, None] + vocabulary - 4 if vocabulary > 4 else torch.zeros(4, 1, dtype=torch.long)
    packed = pack(tokens, logits)
    assert packed.shape == (4, 3) and packed.dtype == torch.float32
    entropies, confidences = reference(logits)
    for number, row in enumerate(packed.tolist()):
        token, entropy, confidence = unpack(row)
        assert token == int(tokens[number])
        assert entropy == pytest.approx(float(entropies[number]), rel=2e-5, abs=2e-5)
        assert confidence == pytest.approx(float(confidences[number]), rel=2e-5)


def test_masked_vocabulary() -> None:
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    logits[:, 10:] = -math.inf
    logits[2, 1:] = -math.inf
    before = logits.clone()
    entropies, confidences = reference(logits[:, :10])
    for number, row in enumerate(pack(torch.zeros(3, 1, dtype=torch.long), logits).tolist()):
        _, entropy, confidence = unpack(row)
        assert entropy == pytest.approx(float(entropies[number]), abs=1e-5)
        assert confidence == pytest.approx(float(confidences[number]), rel=1e-5)
    assert torch.equal(before, logits)  # the loop goes on to use them


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_has_no_signals_is_nan(bad: float) -> None:
    logits = torch.zeros(2, 8)
    logits[0, 3] = bad
    rows = pack(torch.tensor([[5], [6]]), logits).tolist()
    token, entropy, confidence = unpack(rows[0])
    assert token == 5 and math.isnan(entropy) and math.isnan(confidence)
    assert unpack(rows[1])[2] == pytest.approx(1 / 8)  # the other row is unharmed
    nothing = unpack(pack(torch.tensor([[1]]), torch.full((1, 8), -math.inf)).tolist()[0])
    assert math.isnan(nothing[1]) and math.isnan(nothing[2])

"""The signals equal a float64 reference, whatever the logits' dtype, size and masking."""

from __future__ import annotations

import math

import pytest
import torch

from speckv.controller.policy import BEST
from speckv.integrations.signals import CANDIDATES, LEVEL, WIDTH, pack


def reference(logits: torch.Tensor) -> torch.Tensor:
    """Entropy (nats) and the BEST probabilities of each row in float64, from the very values given."""
    p = logits.double().softmax(-1)
    best = p.sort(descending=True).values[:, :BEST]
    absent = torch.zeros(len(p), BEST - best.shape[1])
    return torch.cat((torch.special.entr(p).sum(-1, keepdim=True), best, absent), dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocabulary", [2, 256, 151_936])
@pytest.mark.parametrize("spread", [0.0, 2.5, 30.0])
def test_float64_reference(dtype: torch.dtype, vocabulary: int, spread: float) -> None:
    logits = (torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(0)) * spread).to(dtype)
    tokens = torch.arange(4)[:, None] + vocabulary - 4 if vocabulary > 4 else torch.zeros(4, 1, dtype=torch.long)
    packed = pack(tokens, logits)
    assert packed.shape == (4, WIDTH) and packed.dtype == torch.float32
    assert packed[:, :1].long().equal(tokens)
    found, expected = packed[:, LEVEL].double(), reference(logits)
    torch.testing.assert_close(found[:, 0], expected[:, 0], rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(found[:, 1:], expected[:, 1:], rtol=2e-5, atol=1e-30)


def test_masked_vocabulary() -> None:
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    logits[:, 10:] = -math.inf
    logits[2, 1:] = -math.inf
    before = logits.clone()
    packed = pack(torch.zeros(3, 1, dtype=torch.long), logits)
    torch.testing.assert_close(packed[:, LEVEL].double(), reference(logits[:, :10]), rtol=1e-5, atol=1e-5)
    assert packed[2, LEVEL].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert torch.equal(before, logits)  # the loop goes on to use them


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_has_no_signals_is_nan(bad: float) -> None:
    logits = torch.zeros(2, 8)
    logits[0, 3] = bad
    packed = pack(torch.tensor([[5], [6]]), logits)
    assert packed[:, 0].tolist() == [5, 6]
    assert packed[0, LEVEL].isnan().all()
    assert packed[1, LEVEL].tolist()[1:] == pytest.approx([1 / 8] * BEST)  # the other row is unharmed
    assert pack(torch.tensor([[1]]), torch.full((1, 8), -math.inf))[0, LEVEL].isnan().all()


@pytest.mark.parametrize("vocabulary", [2, 256])
def test_candidates_are_the_tokens_of_the_best_probabilities(vocabulary: int) -> None:
    logits = torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(0))
    packed = pack(logits.argmax(-1, keepdim=True), logits)
    assert pack(None, logits).equal(packed)
    known = min(BEST, vocabulary)
    ids = packed[:, CANDIDATES].long()
    assert (ids[:, 0] == packed[:, 0]).all() and (ids[:, known:] == -1).all()
    torch.testing.assert_close(logits.softmax(-1).gather(1, ids[:, :known]), packed[:, LEVEL][:, 1 : 1 + known])

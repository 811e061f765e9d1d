"""Calling decoder and head directly: exactly what the model itself does, or not done."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM
from transformers_helpers import TINY, RandomPolicy, greedy, prompt, tiny, tiny_pair

from speckv.integrations.transformers import attach_policy, direct

INPUTS = prompt()
SCALED = {
    "capped": lambda: Gemma2ForCausalLM(Gemma2Config(**TINY, head_dim=16, final_logit_softcapping=0.5)),
    "scaled": lambda: GraniteForCausalLM(GraniteConfig(**TINY, logits_scaling=8.0)),
}


def calls_of(model: Any) -> list[int]:
    """Of every forward of ``model`` itself from now on, how many tokens it was fed."""
    seen: list[int] = []
    own = type(model).forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["input_ids"].shape[1])
        return own(model, *args, **kwargs)

    model.forward = forward
    return seen


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
@torch.no_grad()
def test_the_same_logits_bit_by_bit(family: str) -> None:
    model = tiny(family)
    inputs = {**INPUTS, "position_ids": torch.arange(12)[None, :]}
    short, outputs = direct.forward_of(model)(dict(inputs), 3)
    long, _ = direct.whole_forward(model)(dict(inputs), 3)
    assert torch.equal(short, long) and short.shape == (1, 3, 256)
    assert "logits" not in outputs  # it was the decoder that was called


@pytest.mark.parametrize("kind", SCALED)
@torch.no_grad()
def test_not_where_the_model_does_more_with_them(kind: str) -> None:
    torch.manual_seed(0)
    model = SCALED[kind]().eval()
    _, outputs = direct.forward_of(model)(dict(INPUTS), 3)
    assert "logits" in outputs


def test_not_where_what_is_made_of_a_mask_differs() -> None:
    class Deaf(type(tiny())):  # type: ignore[misc]
        def forward(self, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    _, outputs = direct.forward_of(Deaf(tiny().config).eval())(dict(INPUTS), 3)
    assert "logits" in outputs


@pytest.mark.parametrize("which", ["target", "draft"])
def test_a_replaced_forward_is_called(which: str) -> None:
    """``model.forward = torch.compile(model.forward)``, as transformers' own documentation has it."""
    target, draft = tiny_pair()
    reference = greedy(target, INPUTS)
    attach_policy(target, draft, policy := RandomPolicy(0))
    calls = calls_of({"target": target, "draft": draft}[which])
    assert torch.equal(reference, greedy(target, INPUTS, assistant_model=draft))
    rounds = [this for this in policy.rounds if which == "target" or this.levels]
    assert len(calls) >= len(rounds) > 5


@pytest.mark.parametrize("whole", [True, False], ids=["the model's", "the decoder's alone"])
def test_hooks_are_called(whole: bool) -> None:
    target, draft = tiny_pair()
    attach_policy(target, draft, policy := RandomPolicy(0))
    greedy(target, INPUTS, assistant_model=draft)  # once, for whatever is found out about the target by trying
    calls: list[int] = []
    hooked = target if whole else target.model
    hooked.register_forward_pre_hook(lambda *_: calls.append(1))
    before = len(policy.rounds)
    greedy(target, INPUTS, assistant_model=draft)
    assert len(calls) == len(policy.rounds) - before > 5

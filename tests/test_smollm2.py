"""Real text: SmolLM2 in float32, with itself plus weight noise as the draft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers_helpers import RandomPolicy

from speckv.benchmarks.machine import machine, versions
from speckv.benchmarks.profile import chat_inputs
from speckv.benchmarks.prompts import load_prompts
from speckv.controller.policies.fixed import FixedPolicy
from speckv.integrations.models import load_pair
from speckv.integrations.transformers import attach, attach_policy, detach, stats

pytestmark = pytest.mark.smollm2
TOKENS = 64
LONG_TOKENS = 32
"""Of the many generations of the long test."""


def decode(target: Any, inputs: Any, tokens: int = TOKENS, **more: Any) -> list[int]:
    output = target.generate(**inputs, max_new_tokens=tokens, do_sample=False, **more)
    return list(output[0, inputs["input_ids"].shape[1] :].tolist())


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any, Any]:
    return load_pair("smollm2", "fp32", "fp32")


@pytest.fixture(scope="module")
def references(loaded: tuple[Any, Any, Any]) -> list[tuple[Any, list[int]]]:
    """Eight prompts, two of each task, with the target's own greedy output."""
    target, _, tokenizer = loaded
    inputs = [chat_inputs(tokenizer, prompt.text[:400]) for prompt in load_prompts("heldout")[:8]]
    return [(one, decode(target, one)) for one in inputs]


@pytest.mark.parametrize("way", ["random γ", "token", "step"])
def test_greedy_is_token_identical(loaded: Any, references: Any, way: str) -> None:
    target, draft, _ = loaded
    if way == "random γ":
        attach_policy(target, draft, RandomPolicy(0, per_level=False, asks=False))
    else:
        attach(target, draft, mode=way)
    try:
        found = [decode(target, inputs, assistant_model=draft) for inputs, _ in references]
        counted = stats(target)
    finally:
        detach(target)
    assert found == [expected for _, expected in references]
    assert counted.rounds > 50
    if way == "random γ":
        assert set(counted.gammas) == set(range(9))
        assert 0.3 < counted.acceptance_rate < 0.95


@pytest.mark.long
@pytest.mark.parametrize("pair_name", ["smollm2", "qwen2.5-coder"])
def test_long_identity(pair_name: str) -> None:
    """40 prompts × γ 0 … 8 and both modes on SmolLM2, 12 prompts and both modes on the Qwen pair; result stored."""
    target, draft, tokenizer = load_pair(pair_name, "fp32", "fp32")
    small = pair_name == "smollm2"
    prompts = load_prompts("heldout")[: 40 if small else 12]
    gammas = range(9) if small else ()
    ways: dict[str, Any] = {f"fixed-{gamma}": gamma for gamma in gammas} | {"token": None, "step": None}
    different: dict[str, int] = dict.fromkeys(ways, 0)
    for prompt in prompts:
        inputs = chat_inputs(tokenizer, prompt.text[:400])
        expected = decode(target, inputs, LONG_TOKENS)
        for way, gamma in ways.items():
            if gamma is None:
                attach(target, draft, mode=way)
            else:
                attach_policy(target, draft, FixedPolicy(gamma))
            different[way] += decode(target, inputs, LONG_TOKENS, assistant_model=draft) != expected
            detach(target)
    result = {
        "command": "make test-long",
        "pair": pair_name,
        "dtype": "float32",
        "prompts": len(prompts),
        "tokens": LONG_TOKENS,
        "outputs_that_differ_from_plain": different,
        "versions": versions(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }
    folder = Path(__file__).parent.parent / "benchmarks" / "results"
    (folder / f"identity-{pair_name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    assert not any(different.values())

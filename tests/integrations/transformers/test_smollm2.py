"""Real text: SmolLM2 in float32, with itself plus weight noise as the draft."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from pages import ROOT
from transformers_helpers import RandomPolicy

from speckv.benchmarks.collect.generation import end_tokens, until
from speckv.benchmarks.collect.profile import chat_inputs
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.prompts import load_prompts
from speckv.integrations.models import load_pair
from speckv.integrations.transformers import attach, attach_policy, detach, stats

pytestmark = pytest.mark.smollm2
TOKENS = 32
AT_ONCE = 4
WAYS = ("random trees", "token", "step", "random trees, batches")


def decode(target: Any, inputs: Any, **more: Any) -> list[list[int]]:
    output = target.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, **more)
    return [until(text, end_tokens(target)) for text in output[:, inputs["input_ids"].shape[1] :].tolist()]


def attach_way(target: Any, draft: Any, way: str) -> None:
    if way in ("token", "step"):
        attach(target, draft, mode=way)
    else:
        attach_policy(target, draft, RandomPolicy(0, per_level=False, asks=False, siblings=0.6))


def inputs_of(tokenizer: Any, way: str, count: int) -> list[Any]:
    """Of ``count`` held-out prompts, one or AT_ONCE of them a call."""
    texts = [prompt.text[:400] for prompt in load_prompts("heldout")[:count]]
    size = AT_ONCE if "batches" in way else 1
    return [chat_inputs(tokenizer, *texts[start : start + size]) for start in range(0, count, size)]


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any, Any]:
    return load_pair("smollm2", "fp32", "fp32")


@pytest.fixture(scope="module")
def references(loaded: tuple[Any, Any, Any]) -> list[list[int]]:
    """Eight prompts, two of each task: the target's own greedy output."""
    target, _, tokenizer = loaded
    return [text for one in inputs_of(tokenizer, "", 8) for text in decode(target, one)]


@pytest.mark.parametrize("way", WAYS)
def test_greedy_is_token_identical(loaded: Any, references: Any, way: str) -> None:
    target, draft, tokenizer = loaded
    attach_way(target, draft, way)
    try:
        each = [decode(target, inputs, assistant_model=draft) for inputs in inputs_of(tokenizer, way, 8)]
        counted = stats(target)
    finally:
        detach(target)
    assert [text for texts in each for text in texts] == references
    assert counted.rounds > 50
    if "random" in way:
        assert set(counted.gammas) == set(range(9))
        assert 0.3 < counted.acceptance_rate < 0.95
        assert counted.sibling_hits.total() > 10


@pytest.mark.long
@pytest.mark.parametrize("pair_name", ["smollm2", "qwen2.5-coder"])
def test_long_identity(pair_name: str) -> None:
    """40 prompts on SmolLM2, 12 on the Qwen pair: random trees, alone and in batches, and both modes; stored."""
    target, draft, tokenizer = load_pair(pair_name, "fp32", "fp32")
    count = 40 if pair_name == "smollm2" else 12
    expected = [text for one in inputs_of(tokenizer, "", count) for text in decode(target, one)]
    different, told = {}, {}
    for way in WAYS:
        attach_way(target, draft, way)
        each = [decode(target, one, assistant_model=draft) for one in inputs_of(tokenizer, way, count)]
        counted = stats(target)
        told[way] = {"drafted": counted.drafted, "sibling_hits": counted.sibling_hits.total()}
        detach(target)
        found = [text for texts in each for text in texts]
        different[way] = sum(one != other for one, other in zip(found, expected, strict=True))
    result = {
        "command": "make test-long",
        "pair": pair_name,
        "dtype": "float32",
        "prompts": count,
        "tokens": TOKENS,
        "outputs_that_differ_from_plain": different,
        "counted": told,
        "versions": versions(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }
    folder = ROOT / "benchmarks" / "results"
    (folder / f"identity-{pair_name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    assert not any(different.values())

"""Traces: what is stored unfolds to every position's run, as a draft asked position by position would go."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from speckv.benchmarks.trace_making import greedy, run_ahead
from speckv.benchmarks.traces import Branch, Trace, read_traces, unfold, write_traces
from speckv.controller.errors import SpecKVError
from speckv.integrations.models.loading import perturbed
from speckv.integrations.signals import pack, unpack

BRANCHES = [
    Branch(True, (0.5,), (0.75,)),
    Branch(True, (1.0,), (0.5,)),
    Branch(False, (2.0, 3.0, 4.0), (0.25, 0.125, 0.0625)),
    Branch(True, (0.25,), (0.875,)),
]


def test_unfolding_by_hand() -> None:
    trace = unfold("p", "code", 7, BRANCHES, depth=4)
    assert trace.matches.tolist() == [2, 1, 0, 1]
    assert trace.lengths.tolist() == [4, 4, 3, 1]
    nan = np.nan
    expected = [
        [0.75, 0.5, 0.25, 0.125],
        [0.5, 0.25, 0.125, 0.0625],
        [0.25, 0.125, 0.0625, nan],
        [0.875, nan, nan, nan],
    ]
    np.testing.assert_array_equal(trace.confidences, np.array(expected, dtype=np.float32))
    assert trace.entropies[1].tolist() == [1.0, 2.0, 3.0, 4.0]


def model(seed: int, scale: float) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=64,
        eos_token_id=3,
        bos_token_id=None,
        pad_token_id=0,
        initializer_range=scale,
    )
    return LlamaForCausalLM(config).eval()


def asked_one_by_one(draft: LlamaForCausalLM, context: list[int], most: int, ends: set[int]) -> list[tuple[float, ...]]:
    """(token, entropy, confidence) of each drafted token, from whole forwards without any cache."""
    found: list[tuple[float, ...]] = []
    while len(found) < most and not (found and found[-1][0] in ends):
        with torch.inference_mode():
            logits = draft(input_ids=torch.tensor([context])).logits[0, -1:]
        found.append(unpack(pack(logits.argmax(-1, keepdim=True), logits)[0].tolist()))
        context = [*context, int(found[-1][0])]
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_runs_of_all_positions_at_once_are_those_one_by_one(seed: int) -> None:
    target = model(seed, 0.3)
    draft = perturbed(target, 0.1, seed)
    prompts = [[5, 9, 11, 2, 30], [7, 8]]
    tokens, depth = 18, 6
    matched = 0
    for prompt, said in zip(prompts, greedy(target, prompts, tokens), strict=True):
        branches = run_ahead(draft, prompt, said, depth, tokens, frozenset({3}))
        trace = unfold("p", "code", len(prompt), branches, depth)
        for place in range(len(said)):
            run = asked_one_by_one(draft, [*prompt, *said[:place]], min(depth, max(1, tokens - place - 1)), {3})
            length = int(trace.lengths[place])
            assert len(run) <= length <= len(run) + 1  # at the end of a text, one that there is no room for
            for number in range(len(run)):
                assert trace.entropies[place, number] == pytest.approx(run[number][1], abs=1e-4)
                assert trace.confidences[place, number] == pytest.approx(run[number][2], abs=1e-4)
            same = [int(one[0]) == other for one, other in zip(run, said[place:], strict=False)]
            expected = same.index(False) if False in same else len(same)
            assert min(int(trace.matches[place]), len(run)) == expected
        matched += int(trace.matches.sum())
    assert matched > 5


def entries() -> list[dict[str, object]]:
    return [{"prompt_id": "p", "task": "code", "prompt_tokens": 7, "branches": [asdict(one) for one in BRANCHES]}]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_traces(path, entries(), {"depth": 4, "tokens": 4, "pair": "x"})
    (found,), facts = read_traces(path)
    expected = unfold("p", "code", 7, BRANCHES, 4)
    assert isinstance(found, Trace) and (found.prompt_id, found.task, found.prompt_tokens) == ("p", "code", 7)
    np.testing.assert_array_equal(found.confidences, expected.confidences)
    np.testing.assert_array_equal(found.matches, expected.matches)
    assert facts == {"depth": 4, "tokens": 4, "pair": "x"}


@pytest.mark.parametrize("what", ["missing", "text", "records", "too deep", "two tokens of a match"])
def test_what_is_no_trace_file_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "t.parquet"
    if what == "text":
        path.write_text("hello")
    elif what == "records":
        path = Path(__file__).parent.parent / "benchmarks" / "data" / "qwen2.5-coder.parquet"
    elif what != "missing":
        broken = entries()
        if what == "two tokens of a match":
            broken[0]["branches"] = [{"matched": True, "entropies": [1.0, 1.0], "confidences": [0.5, 0.5]}]
        write_traces(path, broken, {"depth": 2 if what == "too deep" else 4, "tokens": 4})
    with pytest.raises(SpecKVError, match=str(path.name)) as refusal:
        read_traces(path)
    assert "\n" not in str(refusal.value)

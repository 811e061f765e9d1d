"""Traces: what is stored unfolds to every position's run, as a draft asked position by position would go."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from pages import ROOT
from transformers import LlamaConfig, LlamaForCausalLM

from speckv.benchmarks.collect.trace_making import greedy, ranks_of, run_ahead
from speckv.benchmarks.collect.traces import LAST_RANK, Best, Branch, Trace, read_traces, unfold, write_traces
from speckv.controller.errors import SpecKVError
from speckv.integrations.models.loading import perturbed


def halving(first: float) -> Best:
    return (first, first / 2, first / 4, first / 8)


BRANCHES = [
    Branch(0, (0.5,), ((0.75, 0.125, 0.0625, 0.0625),)),
    Branch(0, (1.0,), (halving(0.5),)),
    Branch(2, (2.0, 3.0, 4.0), (halving(0.25), halving(0.125), halving(0.0625))),
    Branch(0, (0.25,), ((0.875, 0.0625, 0.03125, 0.0),)),
]


def test_unfolding_by_hand() -> None:
    trace = unfold("p", "code", 7, BRANCHES, depth=4)
    assert trace.matches.tolist() == [2, 1, 0, 1]
    assert trace.lengths.tolist() == [4, 4, 3, 1]
    assert trace.ranks.tolist() == [0, 0, 2, 0]
    nan = np.nan
    expected = [
        [0.75, 0.5, 0.25, 0.125],
        [0.5, 0.25, 0.125, 0.0625],
        [0.25, 0.125, 0.0625, nan],
        [0.875, nan, nan, nan],
    ]
    np.testing.assert_array_equal(trace.confidences, np.array(expected, dtype=np.float32))
    assert trace.entropies[1].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert trace.best.shape == (4, 4, 4) and trace.best[0, 2].tolist() == [0.25, 0.125, 0.0625, 0.03125]


def test_ranks_by_hand_with_equal_logits() -> None:
    logits = torch.tensor([[3.0, 5.0, 5.0, 1.0]]).repeat(4, 1)
    assert ranks_of(torch.arange(4), logits).tolist() == [2, 0, 1, 3]
    many = torch.arange(1000.0)[None].repeat(2, 1)
    assert ranks_of(torch.tensor([999 - 254, 0]), many).tolist() == [254, LAST_RANK]


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


Asked = tuple[list[int], float, list[float]]


def asked_one_by_one(draft: LlamaForCausalLM, context: list[int], most: int, ends: set[int]) -> list[Asked]:
    """(choices, best first, entropy, probabilities) of each drafted token, from whole forwards without any cache."""
    found: list[Asked] = []
    while len(found) < most and not (found and found[-1][0][0] in ends):
        with torch.inference_mode():
            p = draft(input_ids=torch.tensor([context])).logits[0, -1].softmax(-1)
        order = p.sort(descending=True, stable=True)
        found.append(
            (order.indices.tolist(), float(torch.distributions.Categorical(p).entropy()), order.values.tolist())
        )
        context = [*context, found[-1][0][0]]
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_runs_of_all_positions_at_once_are_those_one_by_one(seed: int) -> None:
    target = model(seed, 0.3)
    draft = perturbed(target, 0.1, seed)
    prompts = [[5, 9, 11, 2, 30], [7, 8]]
    tokens, depth = 18, 6
    matched, ranks = 0, set()
    for prompt, said in zip(prompts, greedy(target, prompts, tokens), strict=True):
        branches = run_ahead(draft, prompt, said, depth, tokens, frozenset({3}))
        trace = unfold("p", "code", len(prompt), branches, depth)
        for place in range(len(said)):
            run = asked_one_by_one(draft, [*prompt, *said[:place]], min(depth, max(1, tokens - place - 1)), {3})
            length = int(trace.lengths[place])
            assert len(run) <= length <= len(run) + 1  # at the end of a text, one that there is no room for
            for number, (_, entropy, best) in enumerate(run):
                assert trace.entropies[place, number] == pytest.approx(entropy, abs=1e-4)
                assert trace.best[place, number].tolist() == pytest.approx(best[:4], abs=1e-4)
            assert trace.ranks[place] == run[0][0].index(said[place])
            same = [one[0][0] == other for one, other in zip(run, said[place:], strict=False)]
            expected = same.index(False) if False in same else len(same)
            assert min(int(trace.matches[place]), len(run)) == expected
        matched += int(trace.matches.sum())
        ranks |= set(trace.ranks.tolist())
    assert matched > 5 and len(ranks) > 2


def entries() -> list[dict[str, object]]:
    return [{"prompt_id": "p", "task": "code", "prompt_tokens": 7, "branches": [asdict(one) for one in BRANCHES]}]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_traces(path, entries(), {"depth": 4, "tokens": 4, "pair": "x"})
    (found,), facts = read_traces(path)
    expected = unfold("p", "code", 7, BRANCHES, 4)
    assert isinstance(found, Trace) and (found.prompt_id, found.task, found.prompt_tokens) == ("p", "code", 7)
    for field in ("matches", "lengths", "ranks", "entropies", "best"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    assert facts == {"format": 2, "depth": 4, "tokens": 4, "pair": "x"}


BROKEN = {
    "two tokens of a match": {"rank": 0, "entropies": [1.0, 1.0], "best": [halving(0.5), halving(0.5)]},
    "nothing drafted": {"rank": 1, "entropies": [], "best": []},
    "three probabilities": {"rank": 1, "entropies": [1.0], "best": [0.5, 0.25, 0.125]},
    "an entropy too many": {"rank": 1, "entropies": [1.0, 1.0], "best": [halving(0.5)]},
    "ascending": {"rank": 1, "entropies": [1.0], "best": [(0.25, 0.5, 0.125, 0.0)]},
    "more than everything": {"rank": 1, "entropies": [1.0], "best": [(0.5, 0.25, 0.25, 0.0625)]},
    "negative": {"rank": 1, "entropies": [1.0], "best": [(0.5, 0.25, 0.0, -0.125)]},
    "no number": {"rank": 1, "entropies": [1.0], "best": [(0.5, 0.25, np.nan, 0.0)]},
    "no entropy": {"rank": 1, "entropies": [np.inf], "best": [halving(0.5)]},
}


@pytest.mark.parametrize("what", ["missing", "text", "records", "too deep", "other columns", "older", *BROKEN])
def test_what_is_no_trace_file_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "t.parquet"
    if what == "text":
        path.write_text("hello")
    elif what == "records":
        path = ROOT / "benchmarks" / "data" / "qwen2.5-coder.parquet"
    elif what != "missing":
        broken = entries()
        if what in BROKEN:
            broken[0]["branches"] = [BROKEN[what]]
        facts = {"depth": 2 if what == "too deep" else 4, "tokens": 4}
        write_traces(path, broken, facts | ({"format": 1} if what == "older" else {}))
    if what == "other columns":
        table = pyarrow.parquet.read_table(path)
        pyarrow.parquet.write_table(table.drop_columns(["rank"]), path)
    with pytest.raises(SpecKVError, match=rf"{path.name}: .*with speckv trace") as refusal:
        read_traces(path)
    assert "\n" not in str(refusal.value)

"""`speckv bench` on a tiny pair for real: in float32 all policies of both frameworks say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import ROOT
from sglang_models import byte_tokenizer, save_head_pair, save_pair

from speckv.benchmarks.bench.plan import Plan
from speckv.benchmarks.bench.run import run
from speckv.benchmarks.prompts import Prompt
from speckv.benchmarks.report.reading import read
from speckv.controller.errors import SpecKVError

SGLANG = ROOT / ".venv-sglang" / "bin" / "python"
TEXTS = ("to be", "or not to be", "that is", "the")
PROMPTS = tuple(Prompt(name, "code", text) for name, text in zip(("+0", "1", "2", "3"), TEXTS, strict=True))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A benchmark sets how many it wants."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def plan(folder: Path, **changed: Any) -> Plan:
    target, draft = save_pair(folder)
    small: dict[str, Any] = {"regimes": ("fp32",), "policies": ("plain", "fixed-2", "speckv"), "tokens": 16}
    return Plan(PROMPTS, pair=f"{target},{draft}", threads=1, **(small | changed))


def test_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECKV_CACHE", str(tmp_path / "cache"))
    policies = ("plain", "fixed-2", "hf-default", "paper", "speckv")
    result = run(plan(tmp_path, policies=policies), tmp_path / "r.json", "a test", lambda *_: None)
    assert read(tmp_path / "r.json").rows
    of = {row["policy"]: row for row in result["rows"] if row["task"] == "all"}
    assert {name: row["identical"] for name, row in of.items()} == dict.fromkeys(policies, len(PROMPTS))
    assert of["plain"]["tau"] == 1.0 and of["fixed-2"]["tau"] > 1.0 and of["fixed-2"]["mean_gamma"] > 1.0
    for entry in result["entries"]:
        assert len(entry["arrivals_ms"]) == entry["tokens"] == len(entry["output"])
        assert entry["arrivals_ms"] == sorted(entry["arrivals_ms"]) and entry["arrivals_ms"][-1] <= entry["ms"] + 0.1
        assert sum(entry["gammas"]) == entry["drafted"] and len(entry["gammas"]) == entry["rounds"]
        assert entry["tokens"] == entry["rounds"] + entry["accepted"] + sum(entry["sibling_hits"].values())
        if entry["policy"] != "speckv":
            assert not entry["siblings"]


def test_batches_in_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECKV_CACHE", str(tmp_path / "cache"))
    batches = plan(tmp_path, policies=("plain", "fixed-2", "hf-default", "speckv"), batches=(1, 3))
    result = run(batches, tmp_path / "r.json", "a test", lambda *_: None)
    assert {row.concurrency for row in read(tmp_path / "r.json").rows} == {1, 3}
    of = {row["policy"]: row for row in result["rows"] if (row["task"], row["concurrency"]) == ("all", 3)}
    assert of.keys() == {"plain", "fixed-2", "speckv"}  # transformers' own takes one prompt
    assert all(row["identical"] == row["runs"] == 1 and row["ttft_ms"] is None for row in of.values())
    assert of["plain"]["tau"] == 1.0 and of["fixed-2"]["tau"] > 1.0
    (said,) = [entry for entry in result["entries"] if (entry["policy"], entry["concurrency"]) == ("fixed-2", 3)]
    assert said["prompt_id"] == "+0+1+2" and len(said["output"]) == 3
    assert said["tokens"] == sum(map(len, said["output"])) == said["rounds"] + said["accepted"]


@pytest.mark.skipif(not SGLANG.exists(), reason="needs the environment that `make .venv-sglang/.ready` makes")
def test_both_frameworks_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECKV_CACHE", str(tmp_path / "cache"))
    both = plan(
        tmp_path, frameworks=("transformers", "sglang"), concurrencies=(1, 3), sglang_python=str(SGLANG), repeats=1
    )
    result = run(both, tmp_path / "r.json", "a test", lambda *_: None)
    rows = [row for row in result["rows"] if row["task"] == "all"]
    assert len(rows) == 3 + 2 * 3
    assert all(row["identical"] == row["runs"] == len(PROMPTS) for row in rows)
    (agreed,) = result["agreement"]
    assert agreed["identical"] == agreed["prompts"] == len(PROMPTS)
    served = [entry for entry in result["entries"] if entry["framework"] == "sglang"]
    for entry in served:
        assert len(entry["arrivals_ms"]) == entry["tokens"] == len(entry["output"])
        assert sum(entry["gammas"]) == entry["drafted"] and len(entry["gammas"]) == entry["rounds"]


@pytest.mark.skipif(not SGLANG.exists(), reason="needs the environment that `make .venv-sglang/.ready` makes")
def test_a_head_beside_sglangs_own_choice(tmp_path: Path) -> None:
    policies = ("plain", "fixed-2", "sglang-adaptive", "speckv")
    target, head = save_head_pair(tmp_path / "heads")
    tokenizer = byte_tokenizer()  # after the space that its template ends with, this target says nothing
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(target)
    heads = replace(
        plan(tmp_path / "pair", policies=policies, frameworks=("sglang",), sglang_python=str(SGLANG)),
        pair=f"{target},{head}",
        draft_kind="eagle3",
        together=True,
        repeats=2,
    )
    result = run(heads, tmp_path / "r.json", "a test", lambda *_: None)
    of = {row["policy"]: row for row in result["rows"] if row["task"] == "all"}
    assert {name: row["identical"] for name, row in of.items()} == dict.fromkeys(policies, 2 * len(PROMPTS))
    assert of["fixed-2"]["drafted"] > 0 and result["settings"]["draft_kind"] == "eagle3"


def test_heads_are_sglangs(tmp_path: Path) -> None:
    for changed, what in (
        ({"draft_kind": "eagle3"}, "heads are for --framework sglang"),
        ({"draft_kind": "medusa"}, "known are model, eagle3, mtp"),
        ({"policies": ("plain", "sglang-adaptive"), "frameworks": ("sglang",)}, "add --draft-kind"),
    ):
        with pytest.raises(SpecKVError, match=what):
            run(replace(Plan(PROMPTS, pair="smollm2"), **changed), None, "a test", lambda *_: None)

"""Real pairs behind the real server, in float32: what it says is what it says without speculation; stored."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import ROOT

pytest.importorskip("sglang")

from sglang_steered import Steered

from speckv.benchmarks.bench.heads import with_head
from speckv.benchmarks.bench.in_sglang import folders
from speckv.benchmarks.bench.sglang_server import Server
from speckv.benchmarks.collect.profile import chat_inputs
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.prompts import load_prompts
from speckv.controller.errors import SpecKVError
from speckv.integrations.models.loading import load_tokenizer

TOGETHER = 4
WAYS = {"token": ("token", "real"), "step": ("step", "real"), "step, random trees": ("step", "random")}
"""The mode, and who decides."""


@dataclass(frozen=True)
class Case:
    """A pair, what drafts of it, and how much is asked."""

    pair: str
    kind: str
    algorithm: str
    prompts: int
    tokens: int


CASES = [
    Case("qwen2.5-coder", "model", "SPECKV", 12, 32),
    Case("smollm2", "eagle3", "EAGLE3", 64, 40),
]


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.pair}-{case.kind}")
def test_it_says_what_it_says_without_speculation(case: Case, tmp_path: Path) -> None:
    with ExitStack() as held:
        try:
            pair = with_head(case.pair, case.kind)
        except SpecKVError as error:
            pytest.skip(str(error))
        target, draft = (Path(folder) for folder in folders(pair, held, lambda *_: None))
        tokenizer = load_tokenizer(str(target))
        prompts = [chat_inputs(tokenizer, one.text)["input_ids"][0].tolist() for one in load_prompts("heldout")]
        requests = [(ids, case.tokens) for ids in prompts if len(ids) < 700][: case.prompts]
        assert len(requests) == case.prompts
        limits = ("--context-length", "1024", "--max-running-requests", str(TOGETHER), "--max-total-tokens", "4096")
        plain = Server(target, *limits, threads=None)
        try:
            expected = plain.wait().all(requests, TOGETHER)
        finally:
            plain.stop()
        different, counted = {}, {}
        for way, (mode, how) in WAYS.items():
            server = Steered(
                (target, draft),
                tmp_path,
                mode,
                limits,
                {"SPECKV_CACHE": str(tmp_path)},
                algorithm=case.algorithm,
                threads=None,
            )
            try:
                server.wait().steer(how)
                found = server.all(requests, TOGETHER)
                series = server.series()
            finally:
                server.stop()
            different[way] = sum(one != other for one, other in zip(found, expected, strict=True))
            names = ("rounds", "drafted_tokens", "accepted_tokens", "siblings_accepted")
            counted[way] = {name: series[f"{name}_total"] for name in names}
    result = {
        "command": "make test-long",
        "framework": "SGLang",
        "pair": case.pair,
        "draft_kind": case.kind,
        "dtype": "float32",
        "prompts": case.prompts,
        "tokens": case.tokens,
        "concurrency": TOGETHER,
        "outputs_that_differ_from_plain": different,
        "counted": counted,
        "versions": versions(),
        "machine": machine(),
    }
    name = f"identity-sglang-{case.pair}-{case.kind}.json"
    (ROOT / "benchmarks" / "results" / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    assert not any(different.values())
    assert counted["step, random trees"]["siblings_accepted"] > 0

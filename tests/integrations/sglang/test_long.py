"""The Qwen pair behind the real server, in float32: what it says is what it says without speculation; stored."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from pages import ROOT

pytest.importorskip("sglang")

from sglang_steered import Steered

from speckv.benchmarks.bench.in_sglang import folders
from speckv.benchmarks.bench.sglang_server import Server
from speckv.benchmarks.collect.profile import chat_inputs
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.prompts import load_prompts
from speckv.integrations.models.loading import load_tokenizer

PAIR = "qwen2.5-coder"
PROMPTS, TOKENS, TOGETHER = 12, 32, 4
WAYS = {"token": ("token", "real"), "step": ("step", "real"), "step, random trees": ("step", "random")}
"""The mode, and who decides."""


@pytest.mark.long
def test_the_qwen_pair_says_what_it_says_without_speculation(tmp_path: Path) -> None:
    with ExitStack() as held:
        target, draft = (Path(folder) for folder in folders(PAIR, held, lambda *_: None))
        tokenizer = load_tokenizer(str(target))
        requests = [
            (chat_inputs(tokenizer, prompt.text)["input_ids"][0].tolist(), TOKENS)
            for prompt in load_prompts("heldout")[:PROMPTS]
        ]
        limits = ("--context-length", "1024", "--max-running-requests", str(TOGETHER), "--max-total-tokens", "4096")
        plain = Server(target, *limits, threads=None)
        try:
            expected = plain.wait().all(requests, TOGETHER)
        finally:
            plain.stop()
        different, told = {}, {}
        for way, (mode, how) in WAYS.items():
            server = Steered((target, draft), tmp_path, mode, limits, {"SPECKV_CACHE": str(tmp_path)}, threads=None)
            try:
                server.wait().steer(how)
                found = server.all(requests, TOGETHER)
                series = server.series()
            finally:
                server.stop()
            different[way] = sum(one != other for one, other in zip(found, expected, strict=True))
            told[way] = {name: series[f"{name}_total"] for name in ("rounds", "drafted_tokens", "siblings_accepted")}
    result = {
        "command": "make test-long",
        "framework": "SGLang",
        "pair": PAIR,
        "dtype": "float32",
        "prompts": PROMPTS,
        "tokens": TOKENS,
        "concurrency": TOGETHER,
        "outputs_that_differ_from_plain": different,
        "counted": told,
        "versions": versions(),
        "machine": machine(),
    }
    folder = ROOT / "benchmarks" / "results"
    (folder / f"identity-sglang-{PAIR}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    assert not any(different.values())
    assert told["step, random trees"]["siblings_accepted"] > 0

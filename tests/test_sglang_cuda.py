"""What differs on a GPU: captured draft loops, signals and times that arrive later. Skipped where there is none."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("sglang")

from sglang_models import CONTEXT, requests, save_pair

from speckv.benchmarks.bench.sglang_server import Server
from speckv.integrations.sglang.letter import Letter
from speckv.integrations.sglang.timing import Stopwatch
from speckv.integrations.signals import pack

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_posting_signals_waits_for_nothing_and_reading_does() -> None:
    logits = torch.zeros(1, 4, device="cuda")
    start = time.perf_counter()
    torch.cuda._sleep(1_000_000_000)
    letter = Letter(pack(logits.argmax(-1, keepdim=True), logits))
    assert time.perf_counter() - start < 0.2
    assert letter.read()[0, 2] == pytest.approx(0.25)


def test_times_are_those_of_the_device() -> None:
    stopwatch = Stopwatch("cuda")
    start = stopwatch.mark()
    torch.cuda._sleep(10_000_000)
    end = stopwatch.mark()
    torch.cuda.synchronize()
    assert (stopwatch.ms(start, end) or 0.0) > 1.0


@pytest.mark.parametrize("options", [(), ("--disable-cuda-graph",), ("--disable-overlap-schedule",)])
def test_greedy_output_with_and_without_graphs_and_overlap(tmp_path: Path, options: tuple[str, ...]) -> None:
    target, draft = save_pair(tmp_path)
    config = tmp_path / "speckv.json"
    config.write_text(json.dumps({"max_gamma": 6}))
    limits = ("--context-length", str(CONTEXT), "--max-running-requests", "4", "--max-total-tokens", "4096")
    answers, logs = [], []
    for more in (
        (),
        (
            *("--speculative-algorithm", "SPECKV", "--speculative-draft-model-path", str(draft)),
            *("--speculative-adaptive-config", str(config)),
        ),
    ):
        server = Server(target, *limits, *options, *more)
        try:
            answers.append(server.wait().all(requests(32)))
            logs.append(server.log.read_text())
        finally:
            server.stop()
    assert answers[0] == answers[1]
    assert ", trees, decided" in logs[1], "where no attention backend is named, one is taken that verifies trees"

"""What differs on a GPU: captured draft loops, signals and times that arrive later. Skipped where there is none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("sglang")

from sglang_models import requests, save_pair
from sglang_steered import LIMITS, Steered

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
def test_greedy_output_is_identical_with_and_without_graphs_and_overlap(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Where no attention backend is named, one is taken that verifies trees; random ones are, and the policy's own."""
    pair = save_pair(tmp_path)
    given, ieee = ("--cuda-graph-backend-prefill", "disabled", *options), {"TRITON_F32_DEFAULT": "ieee"}
    plain = Server(pair[0], *LIMITS, *given, "--attention-backend", "triton", environment=ieee)
    try:
        expected = plain.wait().all(requests(64))
    finally:
        plain.stop()
    mode = "token" if "--disable-cuda-graph" in options else "step"
    server = Steered(pair, tmp_path, mode, given, ieee)
    try:
        server.wait()
        assert ", trees, decided" in server.log.read_text()
        for how in ("real", "random"):
            server.steer(how)
            assert server.all(requests(64)) == expected
        assert server.series()["siblings_accepted_total"] > 0
    finally:
        server.stop()

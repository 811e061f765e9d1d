"""What a server is launched with: compressed targets, and a controller that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sglang")

from sglang_models import requests, save_pair
from sglang_steered import LIMITS

from speckv.benchmarks.bench.sglang_server import Server
from speckv.integrations.models.compressed import compressed_folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


def speckv(pair: tuple[Path, Path], *options: str, **more: Any) -> Server:
    algorithm = ("--speculative-algorithm", "SPECKV", "--speculative-draft-model-path", str(pair[1]))
    return Server(pair[0], *LIMITS, *algorithm, *options, **more)


def test_quantised_targets(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """As bitsandbytes saves them; the draft stays as it is. All is answered, drafted and counted at their level."""
    config = tmp_path / "speckv.json"
    config.write_text(json.dumps({"gamma": 3}))
    loading = ("--load-format", "bitsandbytes", "--speculative-draft-load-format", "auto")
    given = (*loading, "--speculative-adaptive-config", str(config))
    targets = {name: compressed_folder(str(pair[0]), name, root=tmp_path) for name in ("int8", "nf4")}
    running = {name: speckv((target, pair[1]), *given, dtype="bfloat16") for name, target in targets.items()}
    try:
        for name, server in running.items():
            answers = [server.wait().generate(ids, 20) for ids, _ in requests(4, seed=13)]
            assert all(len(answer["output_ids"]) == 20 for answer in answers)
            assert sum(answer["meta_info"]["spec_num_correct_drafts"] for answer in answers) > 0
            assert f"speckv: compression level {name}, γ 0 … 3" in server.log.read_text()
    finally:
        for server in running.values():
            server.stop()


def test_a_foreign_controller_stops_the_launch_with_one_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"something else")
    config = tmp_path / "speckv.json"
    config.write_text(json.dumps({"controller": str(tmp_path / "mine.onnx")}))
    server = speckv(pair, "--speculative-adaptive-config", str(config))
    with pytest.raises(RuntimeError, match="exited with 1") as refused:
        server.wait()
    assert "mine.onnx" in str(refused.value).strip().splitlines()[-1]
    assert "Traceback" not in str(refused.value)


def test_what_shares_a_batch_in_another_way_is_refused_in_one_line(pair: tuple[Path, Path]) -> None:
    """Data-parallel attention under both of its names, and pipeline parallelism."""
    refused = {
        ("--tp-size", "2", "--attn-dp-size", "2"): "data-parallel attention",
        ("--tp-size", "2", "--dp-size", "2", "--enable-dp-attention"): "data-parallel attention",
        ("--pp-size", "2"): "pipeline parallelism",
    }
    running = [(speckv(pair, *options), what) for options, what in refused.items()]
    try:
        for server, what in running:
            with pytest.raises(RuntimeError, match="exited with 1") as refusal:
                server.wait()
            assert str(refusal.value).strip().splitlines()[-1] == f"speckv: SPECKV cannot be combined with {what}"
            assert "Traceback" not in str(refusal.value)
    finally:
        for server, _ in running:
            server.stop()

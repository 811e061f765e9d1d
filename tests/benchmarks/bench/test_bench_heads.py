"""Which head a benchmark is of: the one named, or the one trained for a named pair; what is none is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speckv.benchmarks.bench import heads
from speckv.benchmarks.bench.heads import trained, with_head
from speckv.controller.errors import SpecKVError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECKV_CACHE", str(tmp_path))
    monkeypatch.setattr(heads, "resolve", lambda pair, progress: type("Sources", (), {"target": f"of {pair}"}))
    return tmp_path


def config(folder: Path, architecture: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return folder


def test_models_are_taken_as_they_are() -> None:
    assert with_head("smollm2", "model") == "smollm2" and with_head("a/b,c/d", "mtp") == "a/b,c/d"


def test_a_named_pair_has_the_head_that_was_trained_for_it() -> None:
    with pytest.raises(SpecKVError, match=r"smollm2: no head.* python -m speckv.benchmarks.eagle3 --pair smollm2"):
        with_head("smollm2", "eagle3")
    head = config(trained("smollm2"), "LlamaForCausalLMEagle3")
    assert with_head("smollm2", "eagle3") == f"of smollm2,{head}"
    with pytest.raises(SpecKVError, match=r"give --pair TARGET,HEAD$"):
        with_head("smollm2", "mtp")


def test_a_model_is_no_head(cache: Path) -> None:
    assert with_head(f"a/b,{config(cache / 'head', 'Eagle3LlamaForCausalLM')}", "eagle3").startswith("a/b,")
    with pytest.raises(SpecKVError, match="no EAGLE-3 head, but LlamaForCausalLM;"):
        with_head(f"a/b, {config(cache / 'model', 'LlamaForCausalLM')}", "eagle3")
    for content in (b"{", b"[]", b"\xff"):
        (cache / "model" / "config.json").write_bytes(content)
        with pytest.raises(SpecKVError, match=r"config.json: no model's configuration; give"):
            with_head(f"a/b,{cache / 'model'}", "eagle3")

"""The kit for machines with a GPU runs on a CPU, on small models, from one end to the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from speckv.benchmarks.gpu import __main__ as kit
from speckv.benchmarks.gpu.costs import regime
from speckv.benchmarks.gpu.exactness import check
from speckv.benchmarks.gpu.figures import section
from speckv.benchmarks.gpu.pairs import MODES
from speckv.integrations.transformers import target as target_module


def test_everything_is_told(tmp_path: Path) -> None:
    stored = tmp_path / "gpu.json"
    done = CliRunner().invoke(kit.app, ["--device", "cpu", "--json", str(stored)])
    assert done.exit_code == 0, done.output
    told = json.loads(stored.read_text())
    greedy = [row for row in told["exactness"] if row["what"] == "greedy"]
    assert {(row["shape"], row["batch"]) for row in greedy} == {(s, b) for s in ("chain", "tree") for b in (1, 4)}
    assert all(row["identical"] and row["accepted"] for row in greedy)
    assert all(row["sibling_hits"] for row in told["exactness"] if row["shape"] == "tree")
    assert all(row["p_value"] > 1e-3 for row in told["exactness"] if row["what"] == "sampling")
    assert told["synchronisations"] == [{"batch": 1}, {"batch": 8}]  # what a CPU cannot tell
    assert len(told["target"]) == 12 and all(row["ms"] > 0 for row in told["draft"] + told["target"])
    assert {(row["policy"], row["batch"]) for row in told["replay"]} == {(p, b) for p in kit.REPLAYED for b in (1, 2)}
    assert {row["policy"] for row in told["end_to_end"] if row["batch"] == 1} == set(MODES)
    assert all(row["tokens_per_s"] > 0 for row in told["end_to_end"])
    assert [row["mask"] for row in told["masks"]] == ["own", "tree", "boolean"]
    text = section(told)
    assert "in 6 of 6 ways" in text and text.count("| speckv |") == 4 and "| target | 2 |" in text


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, arguments = tmp_path / "gpu.json", ["--device", "cpu", "--json", str(tmp_path / "gpu.json")]
    calls: list[str] = []

    def part(name: str) -> Any:
        def run(*_: Any) -> Any:
            calls.append(name)
            yield name
            if calls == ["one", "two"]:
                raise KeyboardInterrupt
            yield name

        return run

    monkeypatch.setattr(kit, "PARTS", {name: part(name) for name in ("one", "two")} | {"exactness": lambda *_: []})
    CliRunner().invoke(kit.app, arguments)
    found = json.loads(stored.read_text())
    assert (found["done"], found["one"], found["two"]) == (["one"], ["one", "one"], ["two"])
    assert CliRunner().invoke(kit.app, arguments).exit_code == 0 and calls == ["one", "two", "two"]
    assert json.loads(stored.read_text())["two"] == ["two", "two"]
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"device": "another"}))
    done = CliRunner().invoke(kit.app, arguments)
    assert done.exit_code and "is not of this device" in str(done.exception) and calls == ["one", "two", "two"]


def test_what_is_not_exact_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = [{"what": "greedy", "identical": False}, {"p_value": 0.5}]
    monkeypatch.setattr(kit, "PARTS", {"exactness": lambda *_: found})
    done = CliRunner().invoke(kit.app, ["--device", "cpu", "--json", str(tmp_path / "gpu.json")])
    assert done.exit_code and "1 ways of decoding are not the target's own" in str(done.exception)
    assert json.loads((tmp_path / "gpu.json").read_text())["exactness"][0]["identical"] is False


def test_the_check_notices_rows_that_were_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "gather", lambda cache, rows, count: None)
    assert not all(row["identical"] for row in check(torch.device("cpu"), 4) if row["what"] == "greedy")


def test_batches_that_do_not_fit_are_left_out() -> None:
    rows = [{"batch": 4, "tokens": count, "context": 9, "ms": 1.0 + count} for count in (1, 2)]
    none = [row | {"ms": None} for row in rows]
    found = regime("here", rows, rows, 4, 9)
    assert found is not None and found.draft_ms(4) == 2.0
    assert regime("here", rows, none, 4, 9) is None and regime("here", rows, rows, 8, 9) is None


def test_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = CliRunner().invoke(kit.app, ["--device", "cuda"])
    assert done.exit_code and "no CUDA device" in str(done.exception)

"""What `make test-quick` leaves out is what it says, so that neither a slow test nor a gap creeps into it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import quick

FILES = {path.relative_to(quick.TESTS).as_posix(): path for path in quick.TESTS.rglob("test_*.py")}


def test_files_that_are_named_are_there_and_would_be_in_it() -> None:
    assert all(name in FILES and not quick.runs_models(FILES[name]) for name in quick.SLOW)


def test_the_core_is_in_it_and_what_runs_models_is_not() -> None:
    left = {name for name, path in FILES.items() if quick.left_out(path)}
    core = {"controller": ("cost", "features", "policies", "records", "throughput_policy", "training")}
    core |= {"export": ("artefact", "exchange"), "benchmarks/cli": ("cli",), "benchmarks/publish": ("readme",)}
    core |= {"benchmarks/replay": ("replay",), "benchmarks/report": ("report",)}
    kept = {f"{folder}/test_{name}.py" for folder, names in core.items() for name in names}
    assert kept <= FILES.keys() - left
    assert {name for name in FILES if name.startswith(("integrations/transformers/", "integrations/sglang/"))} <= left
    assert {"test_docs.py", "test_examples.py", "test_install.py"} <= left


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("from speckv.controller.cost import CostModel", False),
        ("import torch", True),
        ("def test() -> None:\n    from torch import nn", True),
        ("from speckv.integrations import runtime", False),
        ("from speckv.integrations import models", True),
        ("from speckv.integrations.transformers import attach", True),
        ("from speckv.benchmarks.collect import profile", True),
        ("from speckv.benchmarks.cli import main", False),  # its commands import torch when they run
        ("from sglang_models import save_pair", True),  # a file of tests/ that imports torch
        ("from controllers import published_arrays", False),
    ],
)
def test_a_file_that_imports_what_runs_models_is_known(tmp_path: Path, text: str, runs: bool) -> None:
    (tmp_path / "test_a.py").write_text(text)
    assert quick.runs_models(tmp_path / "test_a.py") is runs


def test_torch_cannot_be_imported_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [quick.NoModels(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="make test-quick"):
        importlib.import_module("torch")

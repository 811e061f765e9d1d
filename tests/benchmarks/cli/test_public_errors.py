"""Every public command with wrong input: one line that names the thing and the remedy, exit code 2, nothing written."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from sglang_models import save_pair

from speckv.benchmarks.cli import main as cli
from speckv.benchmarks.common.command import run

PAIR = "--pair target,draft"

COMMANDS = {
    "nosuch": "No such command 'nosuch'; see `speckv --help`",
    "bench": "Missing argument 'out'; see `speckv bench --help`",
    "bench .": "file '.' is a directory; see `speckv bench --help`",
    "bench r.json --pair nosuch": "nosuch: no such pair; known are default, qwen2.5-coder, smollm2",
    "bench r.json --pair target,": "target,: one of the two is missing; give TARGET,DRAFT",
    "bench r.json --pair ./absent,./draft": "./absent: no model folder (no config.json in it); give a folder",
    "bench r.json --framework vllm": "framework vllm: known are transformers, sglang",
    "bench r.json --compression int3": "compression int3: known are bf16, int8",
    "bench r.json --policy nosuch": "policy nosuch: known are plain",
    "bench r.json --policy speckv": "plain is missing, and everything is measured against it",
    "bench r.json --prompts absent.jsonl": "absent.jsonl: no such prompt file; give train or heldout, or a JSONL file",
    "bench r.json --batch 0": "batch 0: must be at least 1",
    "bench r.json --temperature nan": "temperature nan: must be 0 (greedy) or above",
    "bench r.json --temperature inf": "temperature inf: must be 0 (greedy) or above",
    "bench r.json --count 9999": "9999 prompts are asked for, and there are",
    f"bench r.json {PAIR} --framework transformers --controller absent.onnx": "absent.onnx: no such file",
    "bench r.json --url nonsense": "--url nonsense: not an address; give it as http://host:30000",
    "bench r.json --model x": "--model: is of servers at --url; models that are started here are named with --pair",
    "demo --pair nosuch": "nosuch: no such pair; known are",
    f"demo {PAIR} --compression int3": "int3: no such compression; known are fp32, fp16, bf16, int8, nf4",
    f"demo {PAIR} --modes plain,nosuch": "mode nosuch: known are plain, hf-default, fixed-N",
    f"demo {PAIR} --controller absent.onnx": "absent.onnx: no such file",
    f"demo {PAIR} --json .": "'--json': file '.' is a directory",
    "demo --prompts 0": "'--prompts'",
    "calibrate --pair nosuch": "nosuch: no such pair; known are",
    f"calibrate {PAIR} --compression int3": "int3: no such compression; known are",
    "trace t.txt": "t.txt: must end in .parquet, by which it is known when it is read",
    "trace t.parquet --pair nosuch": "nosuch: no such pair; known are",
    f"trace t.parquet {PAIR} --compression int3": "int3: no such compression; known are",
    f"trace t.parquet {PAIR} --prompts absent.jsonl": "absent.jsonl: no such prompt file; give",
    "profile p.csv": "p.csv: must end in .parquet",
    f"profile p.parquet {PAIR} --compressions bf16,int3": "int3: no such compression; known are",
    f"profile p.parquet {PAIR} --gammas 0,x": "--gammas 0,x: give whole numbers with commas between, such as 2,4,6,8",
    "train absent.parquet": "absent.parquet: no such file; `speckv profile` writes one",
    "train text.json": "text.json: not a readable record file",
    "train text.json --out x.bin": "--out x.bin: must end in .onnx, by which an artefact is known",
    "inspect absent": "absent: no such file; give the path of a controller that `speckv train` wrote",
    "inspect text.json": "text.json: refused, since it is no ONNX file, or a damaged one; `speckv train` makes",
    "inspect .": ".: holds neither controller.onnx nor speckv_mlp16_weights.npz; give a controller's file or folder",
    "export default": "Missing option '--out'; see `speckv export --help`",
    "export default --out text.json": "cannot be written",
    "export text.json --out d": "text.json: refused",
    "import absent": "absent: no such file; give published weights (.npz), or the folder that holds speckv_mlp16",
    "import .": "speckv_mlp16_weights.npz: no such file; give published weights (.npz)",
    "report absent.json": "absent.json: no such file; write it with speckv bench absent.json",
    "report text.json": "text.json: not a result of this version of speckv bench; measure again",
    "report text.json -o text.json": "is a file; see `speckv report --help`",
    "recommend .": ".: cannot be read (",
    "doctor extra": "Got unexpected extra argument(s) (extra); see `speckv doctor --help`",
}

MODULES = {
    "replay.__main__ --only nosuch": "--only nosuch: ",
    "replay.__main__ --batch 0": "--batch 0: give sizes of 1 or more, as 1,4,8",
    "replay.__main__ --traces absent": "heldout-bf16.parquet: no such file; record it with `speckv trace`, or name its",
    "replay.__main__ --regimes absent.json": "absent.json: cannot be read (No such file or directory); give a file",
    "replay.__main__ --regimes text.json": "text.json: not a regimes file",
    "replay.__main__ --plot x.gif": "--plot x.gif: name a .png or an .svg file",
    "replay.__main__ --json .": "'--json': file '.' is a directory",
    "latency --controller absent.onnx": "absent.onnx: no such file; give the path of a controller",
    "latency --decisions 1": "'--decisions'",
    "latency --json .": "'--json': file '.' is a directory",
    "paper.__main__": "the folder of the released data is not known; give it by --data or ",
    "paper.__main__ --data absent": "absent",
    "paper.__main__ --data . --plot x.png": "--plot draws the examination; add --examine",
    "paper.__main__ --data . --page absent.md": "absent.md: no such page; --page fills the tables of an existing one",
    "end_to_end --framework nosuch": "framework nosuch: known are transformers, sglang",
    "end_to_end --regime nosuch": "compression nosuch: known are bf16",
    "end_to_end --policy nosuch": "policy nosuch: known are plain",
    "end_to_end --pair nosuch": "nosuch: no such pair; known are",
    "end_to_end --prompts 99999": "99999 prompts are asked for, and there are",
    "end_to_end --json .": "'--json': file '.' is a directory",
    "gpu.__main__ --device nosuch": "--device nosuch: no such device; say cpu, cuda or cuda:1",
    "gpu.__main__ --device cpu --traces absent": "no such file; run this in the root of a clone, or name",
    "gpu.__main__ --json .": "'--json': file '.' is a directory",
    "simulate --gammas 0,x": "--gammas 0,x: ",
    "simulate --alpha 2": "",
    "simulate --json .": "'--json': file '.' is a directory",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a tiny pair and a file that is nothing; nothing else may be in it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPECKV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("OPENAI_API_KEY", "SPECKV_PAPER_DATA"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "text.json").write_text('{"no": "result"}', encoding="utf-8")
    return tmp_path


@pytest.fixture
def pair(here: Path) -> None:
    save_pair(here)


def refused(
    here: Path, capsys: pytest.CaptureFixture[str], call: Callable[[], object], said: str, kept: set[str]
) -> None:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        call()
    out, err = capsys.readouterr()
    *before, line = err.splitlines()
    assert ended.value.code == 2 and not out and not before, (out, err)
    assert line.startswith("speckv: ") and said in line, line
    assert {path.name for path in here.iterdir()} == kept


@pytest.mark.parametrize("given", COMMANDS)
def test_a_command(given: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"text.json"}
    if "target" in given or "draft" in given:
        save_pair(here)
        kept |= {"target", "draft"}
    monkeypatch.setattr(sys, "argv", ["speckv", *shlex.split(given)])
    refused(here, capsys, cli.main, COMMANDS[given], kept)


@pytest.mark.parametrize("given", MODULES)
def test_a_module(given: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, *arguments = shlex.split(given)
    app = import_module(f"speckv.benchmarks.{name}").app
    refused(here, capsys, lambda: run(app, f"python -m {name}", arguments), MODULES[given], {"text.json"})

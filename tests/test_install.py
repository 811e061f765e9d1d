"""README's install lines as they stand, in fresh environments: what pip resolves today, and no constraints of ours."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import controllers
import pytest
from bench_results import both_frameworks, save
from controllers import save_weights
from pages import README, ROOT, blocks, commands, sources
from sglang_models import save_pair

from speckv.benchmarks.cli import main as cli
from speckv.controller.records import Row, write_records
from speckv.export.exchange import WEIGHTS

pytestmark = pytest.mark.install

COMMANDS = {
    "bench": "out.json --pair ./target,./draft --framework transformers --compression fp32 --count 1 --tokens 4",
    "calibrate": "--pair ./target,./draft --compression fp32 --draft-compression fp32 --repeats 1",
    "demo": "--pair ./target,./draft --compression fp32 --draft-compression fp32 --prompts 1 --tokens 8",
    "doctor": "",
    "export": "default --out shared",
    "import": "published --out imported.onnx",
    "inspect": "default",
    "profile": "out.parquet --pair ./target,./draft --compressions fp32 --per-task 1 --tokens 8",
    "recommend": "result.json",
    "report": "result.json",
    "trace": "traces.parquet --pair ./target,./draft --compression fp32 --tokens 8 --depth 3",
    "train": "records.parquet --estimator ridge",
}
ANYWHERE = {"doctor", "export", "import", "inspect", "recommend"}
"""What works with the extra ``cpu`` alone."""

WITH_A_PAIR = ANYWHERE | {"calibrate", "demo"}
"""What works with README's ``transformers,cpu``."""


class Fresh:
    """An environment with nothing in it yet, and a folder with a tiny pair, records and results."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_CONSTRAINT")}
        self.variables = kept | {
            "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "SPECKV_CACHE": str(folder / "cache"),
        }

    def run(self, line: str, at: Path | None = None) -> subprocess.CompletedProcess[str]:
        """What comes of ``line`` in a shell, in the folder."""
        return subprocess.run(
            line, shell=True, cwd=at or self.folder, env=self.variables, capture_output=True, text=True
        )

    def must(self, line: str, at: Path | None = None) -> str:
        """What ``line`` prints; it has to succeed."""
        ended = self.run(line, at)
        assert ended.returncode == 0, f"{line}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
        return ended.stdout

    def check_commands(self, working: set[str]) -> dict[str, str]:
        """Those of COMMANDS that are ``working`` do, and print what is returned; every other names its extra."""
        printed = {}
        for name, options in COMMANDS.items():
            if name in working:
                printed[name] = self.must(f"speckv {name} {options}")
                continue
            ended = self.run(f"speckv {name} {options}")
            assert ended.returncode == 2 and not ended.stdout, f"{name}: {ended.stdout}{ended.stderr}"
            assert re.fullmatch(
                r"speckv: .* (is|are) not installed; pip install 'speckv\[[a-z,]+\]'\n", ended.stderr
            ), name
        return printed


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the repository, and nothing that was built beside them."""
    made = tmp_path_factory.mktemp("clone")
    for path in sources():
        copy = made / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return made


@pytest.fixture
def fresh(tmp_path: Path, synthetic_rows: list[Row]) -> Iterator[Fresh]:
    save_pair(tmp_path)
    write_records(synthetic_rows, tmp_path / "records.parquet")
    save_weights(tmp_path / "published" / WEIGHTS, controllers.published_arrays())
    save(both_frameworks(), tmp_path / "result.json")
    # Beside the other environments: gigabytes, which a temporary folder in memory has no room for.
    with tempfile.TemporaryDirectory(prefix=".venv-fresh-", dir=ROOT, ignore_cleanup_errors=True) as environment:
        yield Fresh(Path(environment), tmp_path)


def installing(extras: str) -> list[str]:
    """README's lines that build the package or install it with these extras."""
    return [line for line in commands(README) if line.startswith("pip wheel") or line.endswith(f'[{extras}]"')]


def test_every_command_is_tried() -> None:
    assert COMMANDS.keys() == {command.name or command.callback.__name__ for command in cli.app.registered_commands}


def test_with_one_extra_every_command_works_or_names_another(fresh: Fresh, clone: Path) -> None:
    fresh.must('pip install ".[cpu]"', clone)
    fresh.check_commands(ANYWHERE)
    told = fresh.run("speckv train records.parquet").stderr
    assert "sklearn, skl2onnx and pyarrow are not installed" in told
    fresh.must(told.partition("; ")[2].strip())
    fresh.must("speckv train records.parquet --estimator ridge --out mine.onnx")
    assert "ridge" in fresh.must("speckv inspect mine.onnx")


def test_what_readme_says(fresh: Fresh, clone: Path) -> None:
    """Its lines for a clone, then those for a wheel, over again; the doctor; and its Python on a tiny pair."""
    from_clone, make_wheel, from_wheel = installing("transformers,cpu")
    fresh.must(from_clone, clone)
    fresh.must("pip uninstall --yes speckv")
    fresh.must(make_wheel, clone)
    fresh.must(from_wheel, clone)
    doctor = fresh.check_commands(WITH_A_PAIR)["doctor"]
    assert "tested with transformers" in doctor and "speckv[sglang]" in doctor and "not ok" not in doctor
    script = (
        "import torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "target, draft = (AutoModelForCausalLM.from_pretrained(name) for name in ('target', 'draft'))\n"
        "inputs = AutoTokenizer.from_pretrained('target')('to be or', return_tensors='pt')\n"
        "plain = target.generate(**inputs)\n"
        f"{blocks(README, 'python')[0]}"
        "assert torch.equal(out, plain), (out, plain)\n"
    )
    (fresh.folder / "trial.py").write_text(script)
    assert ast.literal_eval(fresh.must("python trial.py"))["rounds"] > 0

"""Every file of the hostile set is refused in one line, quickly, in little memory, and without a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import controllers
import hostile
import hostile_graphs
import numpy as np
import pytest

from speckv.export.artefact import Artefact
from speckv.export.weights import write_weights

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
Outcome = dict[str, Any]


@pytest.fixture(scope="module")
def network() -> Artefact:
    return controllers.artefact()


def try_all(paths: list[Path], good: list[Path], folder: Path) -> list[Outcome]:
    """Load ``paths`` one after the other in one limited process."""
    listed = folder / "list.json"
    listed.write_text(json.dumps([str(path) for path in (*good, *paths)]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, hostile.__file__, str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, f"the process ended with {done.returncode}: {done.stderr[-2000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()][len(good) :]


def trace(folder: Path) -> list[tuple[str, int, int]]:
    """Every path below ``folder`` with its size and the time of its last change."""
    found = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), status.st_size, status.st_mtime_ns) for path, status in found]


@pytest.fixture(scope="module")
def good(network: Artefact, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("good")
    (folder / "good.onnx").write_bytes(network.content)
    (folder / "good.npz").write_bytes(write_weights(network.heads["acceptance_rate"]))
    return [folder / "good.onnx", folder / "good.npz"]


@pytest.fixture(scope="module")
def outcomes(network: Artefact, good: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    folder = tmp_path_factory.mktemp("hostile")
    forest = controllers.artefact("rf10", False).content
    paths = hostile.make(folder, network.content, forest, good[1].read_bytes())
    before = trace(folder)
    found = try_all(paths, good, tmp_path_factory.mktemp("list"))
    assert trace(folder) == before, "something was written"
    return found


def test_the_set_is_large(outcomes: list[Outcome]) -> None:
    assert len(outcomes) >= 500
    assert len({outcome["path"] for outcome in outcomes}) == len(outcomes)


def test_each_is_refused_in_one_line_that_names_it(outcomes: list[Outcome]) -> None:
    wrong = [outcome for outcome in outcomes if outcome["end"] != "SpecKVError"]
    assert not wrong, wrong
    for outcome in outcomes:
        text = outcome["text"]
        assert text.startswith(outcome["path"]), text
        reason = text.removeprefix(outcome["path"])
        assert reason.isprintable() and 20 < len(reason) < 700, text


def test_each_takes_less_than_a_second(outcomes: list[Outcome]) -> None:
    slowest = max(outcomes, key=lambda outcome: outcome["cpu_s"])
    assert slowest["cpu_s"] < 1, slowest
    assert max(outcome["wall_s"] for outcome in outcomes) < 5, "something waits; a busy machine alone is no reason"


def test_nothing_is_opened_for_writing_nor_run(outcomes: list[Outcome]) -> None:
    assert not [outcome for outcome in outcomes if outcome["events"]]


def test_pickles_are_refused_with_the_reason_and_the_remedy(outcomes: list[Outcome]) -> None:
    pickles = [outcome for outcome in outcomes if Path(outcome["path"]).suffix in (".pkl", ".pt", ".joblib", ".bin")]
    assert len(pickles) >= 9
    for outcome in pickles:
        assert "can run any code" in outcome["text"] and "numpy" in outcome["text"], outcome["text"]


def test_any_single_byte_is_refused_or_harmless(network: Artefact, good: list[Path], tmp_path: Path) -> None:
    """Also the bytes of numbers and metadata, of which some other values are just another controller."""
    generator = np.random.default_rng(9)
    mutable = np.flatnonzero(hostile_graphs.free(network.content))
    paths = []
    for number, at in enumerate(generator.choice(mutable, 150, replace=False)):
        content = bytearray(network.content)
        content[at] = int(generator.integers(256))
        paths.append(tmp_path / f"{number}.onnx")
        paths[-1].write_bytes(content)
    found = try_all(paths, good, tmp_path)
    assert {outcome["end"] for outcome in found} <= {"loaded", "SpecKVError"}, found
    assert sum(outcome["end"] == "loaded" for outcome in found) > 20

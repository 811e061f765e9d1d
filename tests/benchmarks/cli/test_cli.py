"""The command line in this process: helps, what the commands write, and every mistake in one line."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import controllers
import numpy as np
import pytest
from controllers import save_weights

from speckv.benchmarks.cli import app, inspect
from speckv.benchmarks.cli import main as cli
from speckv.controller.records import PAPER_COLUMNS, Row, read_records, write_records
from speckv.controller.training import ESTIMATORS, digest
from speckv.export.exchange import CARD, CONFIG, ONNX, WEIGHTS, open_controller
from speckv.integrations.runtime import DEFAULT_ARTEFACT

OPTIONS = {
    "demo": ["--pair", "--compression", "--draft-compression", "--prompts", "--tokens", "--modes", "--controller"],
    "profile": ["--pair", "--compressions", "--gammas", "--prompts", "--per-task", "--tokens", "--batch"],
    "train": ["--out", "--seed", "--estimator", "--entropy-unit", *ESTIMATORS, "nats", "bits"],
    "inspect": ["default", ".onnx", ".npz"],
    "export": ["default", "--out"],
    "import": [".npz", "--out"],
    "doctor": [],
}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Calls the entry point in an empty folder; an exception that is not an exit fails the test."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(app.console, "width", 200)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["speckv", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with published weights."""
    save_weights(tmp_path / "published" / WEIGHTS, controllers.published_arrays())
    return tmp_path / "published"


@pytest.fixture(scope="module")
def records(synthetic_rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "rows.parquet"
    write_records(synthetic_rows, path)
    return path


@pytest.fixture(scope="module")
def released(synthetic_rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the paper's columns only."""
    path = tmp_path_factory.mktemp("released") / "rows.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(PAPER_COLUMNS), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(synthetic_rows)
    return path


def refused(ended: Ended, *parts: str) -> None:
    """One line on stderr with all of ``parts``, exit code 2, and nothing written to the folder."""
    assert ended.code == 2 and not ended.out
    assert ended.err.startswith("speckv: ") and ended.err.count("\n") == 1 and ended.err.endswith("\n")
    for part in parts:
        assert part in ended.err
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("command", OPTIONS)
def test_every_command_has_a_help_that_names_its_options(run: Run, command: str) -> None:
    ended = run(command, "--help")
    assert ended.code == 0 and not ended.err
    assert all(option in ended.out for option in OPTIONS[command])


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_without_a_command_all_are_listed(run: Run, arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.code == 0 and all(f" {command} " in ended.out for command in OPTIONS)


def test_the_version_is_that_of_the_package(run: Run) -> None:
    """`speckv` is a namespace, which cannot hold a `__version__`."""
    assert run("--version") == Ended(0, f"speckv {importlib.metadata.version('speckv')}\n", "")


def test_inspect_shows_what_a_controller_says_of_itself(run: Run, published: Path) -> None:
    for source in ("default", DEFAULT_ARTEFACT, published, published / WEIGHTS):
        ended = run("inspect", source)
        assert ended.code == 0 and not ended.err
        artefact = open_controller(DEFAULT_ARTEFACT if source == "default" else Path(source))
        assert f"\nsha256 {artefact.sha256}\n" in ended.out
        told = json.loads(ended.out.split("\n", 2)[2])
        assert told["units"]["max_draft_entropy"] == "nats" and told["gammas"] == artefact.metadata.gammas


def test_a_path_that_looks_like_markup_is_printed_as_it_is(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "[red]x[" / "bold]"
    assert run("export", "default", "--out", folder).code == 0
    ended = run("inspect", folder / ONNX)
    assert ended.code == 0 and ended.out.startswith(f"{folder / ONNX}\n")


def test_inspect_refuses_what_is_no_controller(run: Run, tmp_path: Path) -> None:
    for name, content in (("garbage.onnx", b"garbage\n" * 9), ("garbage.npz", b"PK"), ("m.pkl", b"\x80\x04.")):
        (tmp_path / name).write_bytes(content)
        refused(run("inspect", tmp_path / name), name)
    (tmp_path / "empty").mkdir()
    refused(run("inspect", tmp_path / "empty"), "holds neither controller.onnx nor")
    refused(run("inspect", tmp_path / "absent.onnx"), "absent.onnx: no such file")
    refused(run("inspect", "x" * 5000), "cannot be read")


def test_train_writes_a_controller_that_inspect_reads(run: Run, records: Path, synthetic_rows: list[Row]) -> None:
    ended = run("train", records, "--seed", 3)
    assert ended.code == 0 and "Warning" not in ended.err and "test_mse" in ended.out
    training = open_controller(Path("controller.onnx")).metadata.training
    assert (training["estimator"], training["entropy_unit"], training["seed"]) == ("mlp16", "nats", 3)
    assert training["data_sha256"] == digest(synthetic_rows)
    assert ("limit of iterations" in ended.out) is not all(training["converged"].values())
    assert run("inspect", "controller.onnx").code == 0
    assert [path.name for path in Path.cwd().iterdir()] == ["controller.onnx"]


@pytest.mark.parametrize("estimator", ["ridge", "rf10"])
def test_train_on_released_records_in_bits(run: Run, released: Path, estimator: str) -> None:
    ended = run("train", released, "--out", "bits.onnx", "--entropy-unit", "bits", "--estimator", estimator)
    assert ended.code == 0, ended.err
    metadata = open_controller(Path("bits.onnx")).metadata
    assert metadata.heads == ["acceptance_rate"] and metadata.units["mean_draft_entropy"] == "nats"
    assert (metadata.training["estimator"], metadata.training["entropy_unit"]) == (estimator, "bits")
    assert metadata.training["data_sha256"] == digest(read_records(released, "bits"))


def test_train_refuses_in_one_line(run: Run, records: Path, tmp_path: Path) -> None:
    refused(run("train", records, "--estimator", "svm"), "estimator svm: must be one of", *ESTIMATORS)
    refused(run("train", records, "--entropy-unit", "bytes"), "entropy unit bytes: must be nats or bits")
    refused(run("train", records, "--entropy-unit", "bits"), "entropies per token")
    refused(run("train", records, "--out", "controller"), "--out controller: must end in .onnx")
    refused(run("train", "absent.parquet"), "absent.parquet: no such file")
    refused(run("train", "x" * 5000), "name too long")
    (tmp_path / "garbage.parquet").write_bytes(b"PAR1")
    refused(run("train", tmp_path / "garbage.parquet"), "not a readable record file")
    (tmp_path / "file").write_bytes(b"")
    refused(run("train", records, "--estimator", "ridge", "--out", tmp_path / "file" / "x.onnx"), "cannot be written")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train"], ["Missing argument", "see `speckv train --help`"]),
        (["train", "x.csv", "--seed", "one"], ["--seed", "integer", "see `speckv train --help`"]),
        (["train", "x.csv", "--seed", "-1"], ["--seed", "see `speckv train --help`"]),
        (["train", "x.csv", "--estimater", "ridge"], ["--estimater", "see `speckv train --help`"]),
        (["export", "default"], ["--out", "see `speckv export --help`"]),
        (["inspect", "default", "more"], ["more", "see `speckv inspect --help`"]),
        (["trian"], ["trian", "see `speckv --help`"]),
    ],
)
def test_a_wrong_command_line_is_one_line(run: Run, arguments: list[str], parts: list[str]) -> None:
    refused(run(*arguments), *parts)


def test_import_then_export_is_the_round_trip(run: Run, published: Path) -> None:
    for source in (published, published / WEIGHTS):
        assert run("import", source, "--out", "c.onnx").code == 0
        assert Path("c.onnx").read_bytes() == open_controller(published).content
    ended = run("export", "c.onnx", "--out", "shared")
    assert ended.code == 0 and {path.name for path in Path("shared").iterdir()} == {ONNX, CONFIG, WEIGHTS, CARD}
    assert all(f"shared/{name}: " in ended.out for name in (ONNX, CONFIG, WEIGHTS, CARD))
    written = np.load(io.BytesIO((Path("shared") / WEIGHTS).read_bytes()))
    for name, values in controllers.published_arrays().items():
        np.testing.assert_array_equal(written[name], values.astype(np.float32))
    assert run("import", "shared", "--out", "again.onnx").code == 0
    again, first = open_controller(Path("again.onnx")), open_controller(Path("c.onnx"))
    assert again.head("acceptance_rate", (2, 4)) == first.head("acceptance_rate", (2, 4))


def test_import_and_export_refuse_in_one_line(run: Run, published: Path, tmp_path: Path) -> None:
    refused(run("import", DEFAULT_ARTEFACT, "--out", "c.onnx"), "published weights are an .npz of floats W1 (6, 16)")
    refused(run("import", "absent.npz", "--out", "c.onnx"), "absent.npz: no such file")
    refused(run("import", tmp_path / "here"), f"{WEIGHTS}: no such file")
    refused(run("import", published, "--out", "c.npz"), "--out c.npz: must end in .onnx")
    (tmp_path / "file").write_bytes(b"")
    refused(run("import", published, "--out", tmp_path / "file" / "c.onnx"), "cannot be written")
    refused(run("export", "default", "--out", tmp_path / "file"), "cannot be written")
    refused(run("export", "absent", "--out", "shared"), "absent: no such file")
    (published / CONFIG).write_text('{"entropy_unit": "bytes"}')
    refused(run("import", published), "entropy_unit bytes is not nats or bits")
    refused(run("export", published, "--out", "shared"), "entropy_unit bytes is not nats or bits")
    (published / WEIGHTS).write_bytes(b"garbage")
    refused(run("export", published, "--out", "shared"), CONFIG)


def test_a_missing_library_is_named(run: Run, records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(run("train", records), "pyarrow is not installed; pip install 'speckv[")


def test_an_interruption_has_its_own_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(source: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "open_source", interrupt)
    ended = run("inspect", "default")
    assert ended.code == 130 and "Traceback" not in ended.err


def test_the_doctor_prints_versions(run: Run) -> None:
    pytest.importorskip("torch")
    ended = run("doctor")
    assert ended.code in (0, 1) and not ended.err
    assert all(name in ended.out for name in ("onnxruntime", "numpy", "torch", "controller"))

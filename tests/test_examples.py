"""Every script in examples/ is run as a newcomer runs it, on a tiny pair or a stand-in for a server."""

from __future__ import annotations

import io
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from openai_fake import starting
from pages import ROOT
from sglang_models import save_pair

from speckv.export.exchange import open_controller

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))

Example = Callable[..., str]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    target, draft = save_pair(tmp_path_factory.mktemp("pair"))
    return ["--pair", f"{target},{draft}", "--compression", "fp32"]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Example:
    """Runs a script with these arguments in an empty folder; what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPECKV_CACHE", str(tmp_path / "cache"))

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def accepted(said: str) -> list[tuple[int, int]]:
    """Of each line that tells it, the tokens that were accepted and drafted."""
    return [(int(some), int(of)) for some, of in re.findall(r"(\d+) of (\d+) drafted", said)]


def test_transformers_chat(example: Example, pair: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two turns, the second with a history, and an empty line."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("to be\nor not\n\n"))
    said = example("transformers_chat.py", *pair, "--tokens", "24")
    assert said.count("you> ") == 3 and said.count("forwards of the target") == len(accepted(said)) == 2
    emitted, rounds = (int(number) for number in re.search(r"\[(\d+) tokens by (\d+) forwards", said).groups())
    assert 0 < rounds <= emitted <= 24 + 1


def test_transformers_batch(example: Example, pair: list[str]) -> None:
    said = example("transformers_batch.py", *pair, "--tokens", "8", "to be", "or not to be")
    assert "# to be\n" in said and "# or not to be\n" in said and "rounds by γ" in said


def test_own_policy(example: Example, pair: list[str]) -> None:
    """Its own policy drafts, and is right at times; SpecKV's may find that this pair is not worth drafting."""
    said = example("own_policy.py", *pair, "--tokens", "24")
    own, ours = accepted(said)
    assert 0 < own[0] <= own[1] and ours[0] <= ours[1]
    assert said.index("Follow: ") < said.index("SpecKV: ") and said.count("tokens/s") == 2


def test_own_controller(example: Example, pair: list[str]) -> None:
    said = example("own_controller.py", *pair, "--tokens", "12")
    count = int(re.search(r"mine.parquet: (\d+) records", said)[1])
    training = open_controller(Path("mine.onnx")).metadata.training
    assert count > 50 and training["records"] == "mine.parquet" and "rounds by γ" in said


def test_sglang_client(example: Example) -> None:
    """Against a stand-in; tests/integrations/sglang/test_server.py has it with the real server."""
    with starting() as start:
        facts = {"speckv_gamma": [3, None, 0, None], "speckv_siblings": [[1, 0, 0], None, [], None]}
        fake = start(meta_info=facts, totals={"spec_verify_ct": 2, "spec_accept_length": 1.5}, key="secret")
        said = example("sglang_client.py", "to be", "--url", fake.url, "--tokens", "3", "--api-key", "secret")
    assert said.startswith("w0 w1 w2 \n[2 forwards of the target, 1.50 tokens each]\n")
    assert "speckv_gamma: [3, 0]\nspeckv_siblings: [[1, 0, 0], []]\nspeckv_sibling_hit: []\n" in said
    assert [body["model"] for body in fake.bodies] == ["some/model"] * 2


def test_sglang_client_where_no_server_is(example: Example) -> None:
    with starting() as start:
        gone = start().url
    with pytest.raises(SystemExit, match=f"no server answers at {gone}"):
        example("sglang_client.py", "--url", gone)


def test_every_script_has_a_test_and_every_file_a_line() -> None:
    assert SCRIPTS and all(f"test_{path.stem}" in globals() for path in SCRIPTS), "an example needs a test here"
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[[\w.-]+\]\(([\w.-]+)\)", text, re.MULTILINE)
    assert set(listed) | {"README.md"} == {path.name for path in EXAMPLES.iterdir() if path.is_file()}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_how_to_run_it(path: Path) -> None:
    assert f"    python examples/{path.name}" in path.read_text(encoding="utf-8").split('"""')[1]

"""Every command and every piece of Python in our pages is run, with tiny models for TARGET and DRAFT."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from openai_fake import Fake, starting
from pages import PAGES, ROOT, blocks, commands
from sglang_models import save_pair

from speckv.benchmarks.cli import main as cli
from speckv.benchmarks.publish import reference
from speckv.integrations.models.loading import load_model, load_tokenizer

ELSEWHERE = {
    "make demo": "test_cli.py has the command; the project runs it from a clean clone before it is released",
    "make bench": "speckv bench, below",
    "make test": "is what runs this",
    "make check": "is part of make test",
    "make readme": "tests/benchmarks/publish/test_readme.py and below: what it writes is what is there",
    "pip install": "tests/test_install.py",
    "pip wheel": "tests/test_install.py",
    "python examples": "tests/test_examples.py",
    "python -m sglang.launch_server": "tests/integrations/sglang/test_server.py starts it with these options",
    "python -m sglang_router.launch_router": "tests/integrations/sglang/test_router.py",
    "python -m speckv.benchmarks": "their own tests; results are stored in benchmarks/results",
    "speckv demo": "a pair by name, which is minutes of download; tests/benchmarks/cli/test_cli.py has its options",
    "speckv import": "tests/benchmarks/cli/test_cli.py",
    "speckv export": "tests/benchmarks/cli/test_cli.py",
    "speckv train benchmarks/data": "tests/export/test_default_controller.py",
    "speckv profile benchmarks/data": "as below, with the real pair",
    "speckv trace benchmarks/data": "as below, with the real pair",
}
SMALLER = {
    "profile": ["--per-task", "4", "--tokens", "24"],
    "calibrate": ["--repeats", "1"],
    "bench": ["--count", "4", "--tokens", "8", "--threads", "1"],
    "trace": ["--tokens", "8", "--depth", "3"],
}
"""Added to a command, so that it ends within seconds."""

FEWER = ["--count", "8", "--tokens", "8", "--repeats", "1"]
"""The same where servers that run already are measured."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder but for a tiny pair, in ``target`` and ``draft``."""
    made = tmp_path_factory.mktemp("docs")
    save_pair(made)
    return made


@pytest.fixture(scope="module")
def server() -> Iterator[Fake]:
    with starting() as start:
        yield start()


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SPECKV_CACHE", str(folder / "cache"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)  # commands have set their own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: Fake
) -> None:
    for line in commands(page):
        if any(line.startswith(known) for known in ELSEWHERE):
            continue
        line = re.sub(r"http://HOST:\d+", server.url, line)
        words = shlex.split(line.replace("TARGET", "./target").replace("DRAFT", "./draft"))
        assert words[0] == "speckv", line
        monkeypatch.setattr(sys, "argv", [*words, *(FEWER if "--url" in words else SMALLER.get(words[1], []))])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code, f"{line}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python(page: Path, folder: Path) -> None:
    target, draft = (load_model(f"./{name}", "fp32") for name in ("target", "draft"))
    inputs = load_tokenizer("./target")("to be or", return_tensors="pt")
    for text in blocks(page, "python"):
        if "push_to_hub" in text:
            continue  # tests/export/test_exchange.py does it, with a stand-in for the hub
        given: dict[str, Any] = {"target": target, "draft": draft, "inputs": inputs}
        if "mine.onnx" in text and not Path("mine.onnx").exists():
            text = text.replace("mine.onnx", "default")
        with torch.inference_mode():
            exec(compile(text, page.name, "exec"), given)
    target.__dict__.pop("_speckv", None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_json(page: Path) -> None:
    for text in blocks(page, "json"):
        json.loads(text)


def test_the_commands_of_the_reference_are_those_there_are() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert text == reference.rendered(text), "run: python -m speckv.benchmarks.publish.reference"


def test_every_target_of_make_that_a_page_names_is_one() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    named = {line.split()[1] for page in PAGES for line in commands(page) if line.startswith("make ")}
    assert {"demo", "test", "readme"} <= named <= set(phony.split())


def test_pages_have_commands_at_all() -> None:
    """Or a changed layout of the pages would leave the tests above with nothing to do."""
    assert {line.split()[1] for page in PAGES for line in commands(page) if line.startswith("speckv")} >= {
        *("bench", "report", "recommend", "profile", "train", "calibrate", "inspect")
    }

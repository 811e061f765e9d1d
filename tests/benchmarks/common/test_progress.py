"""Progress without a terminal: a line where something begins and ends, few between, and no other library's bar."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub.utils import tqdm as hub_tqdm
from sglang_models import save_pair
from transformers import AutoModelForCausalLM

from speckv.benchmarks.common import progress as module
from speckv.benchmarks.common.progress import duration, progress


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_a_task_is_said_when_it_begins_and_ends_and_seldom_between(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress() as report:
        for done in range(1001):
            report("generate", done, 1000)
            report("quick", 0, 1)
            clock.now += 0.5
        report("quick", 1, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "generate …" and "generate: 30% after 2 min 30 s" in lines
    assert lines[-2:] == ["generate: done in 8 min 20 s", "quick: done in 8 min 20 s"]
    assert len(lines) == 1 + 9 + 1 + 2 and len(set(lines)) == len(lines)


def test_what_was_done_before_and_what_comes_again_is_said_so(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report("bf16", 6, 12)
        report("calibrate", 0, 1)
        report("calibrate", 1, 1)
        report("calibrate", 1, 1)
        clock.now += 400
        report("bf16", 7, 12)  # no tenth, but one waits for a line
        report("bf16", 12, 12)
        report("nf4", 12, 12)
        report("calibrate", 0, 1)
        report("calibrate", 1, 1)
    again = ["calibrate …", "calibrate: done"]
    expected = ["bf16: 50% done before, going on", *again, "bf16: 58% after 6 min 40 s", "bf16: done in 6 min 40 s"]
    assert capsys.readouterr().err.splitlines() == [*expected, "nf4: done", *again]


def test_other_libraries_draw_no_bars_meanwhile(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report("load models", 0, 1)
        target, draft = save_pair(tmp_path)  # "Writing model shards"
        for folder in (target, draft):
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)  # "Loading weights"
        list(transformers.utils.logging.tqdm(range(3), desc="a bar"))
        list(hub_tqdm(range(3), desc="a bar"))
        report("load models", 1, 1)
    said = capfd.readouterr()
    assert not said.out and [line.split(":")[0] for line in said.err.splitlines()] == ["load models …", "load models"]


def test_libraries_that_come_later_are_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.OTHERS, raising=False)
    for name in ("huggingface_hub.utils", "transformers.utils.logging"):
        monkeypatch.delitem(sys.modules, name)
    with progress():
        assert module.os.environ[module.OTHERS] == "1"


def test_durations() -> None:
    assert [duration(one) for one in (7.4, 60, 185, 7800)] == ["7 s", "1 min 0 s", "3 min 5 s", "2 h 10 min"]

"""The built-in prompts: enough of each task, and none of the held-out ones in the training set."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from speckv.benchmarks.prompts import SETS, TASKS, Prompt, load_prompts
from speckv.controller.errors import SpecKVError


def grams(text: str, length: int = 5) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


@pytest.mark.parametrize(("name", "per_task"), [("train", 24), ("heldout", 12)])
def test_every_task_has_enough(name: str, per_task: int) -> None:
    prompts = load_prompts(name)
    counts = Counter(prompt.task for prompt in prompts)
    assert set(counts) == set(TASKS) and len(set(counts.values())) == 1
    assert min(counts.values()) >= per_task
    assert len({prompt.id for prompt in prompts}) == len({prompt.text for prompt in prompts}) == len(prompts)
    assert all(prompt.text.strip() == prompt.text for prompt in prompts)
    assert all(prompt.id.startswith(f"{prompt.task}-") for prompt in prompts)
    assert [prompt.task for prompt in prompts[:8]] == [*TASKS, *TASKS]  # any prefix is balanced


def test_no_prompt_is_in_both_sets() -> None:
    train, heldout = (load_prompts(name) for name in SETS)
    assert not {prompt.id for prompt in train} & {prompt.id for prompt in heldout}
    assert not {prompt.text for prompt in train} & {prompt.text for prompt in heldout}


def test_no_held_out_prompt_is_nearly_a_training_prompt() -> None:
    train = [(prompt.id, grams(prompt.text)) for prompt in load_prompts("train")]
    for prompt in load_prompts("heldout"):
        own = grams(prompt.text)
        assert own, prompt.id
        share, nearest = max((len(own & other) / len(own), name) for name, other in train)
        assert share < 0.25, f"{prompt.id} shares {share:.0%} of its 5-grams with {nearest}"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": 7, "task": "code", "prompt": "Größe?"}\n\n', encoding="utf-8")
    (prompt,) = load_prompts(str(path))
    assert (prompt.id, prompt.task, prompt.text) == ("7", "code", "Größe?")


def test_a_spec_bench_file(tmp_path: Path) -> None:
    """Its first turn is what is asked."""
    path = tmp_path / "question.jsonl"
    path.write_text('{"question_id": 81, "category": "writing", "turns": ["Compose a post.", "Rewrite it."]}\n')
    assert load_prompts(str(path)) == [Prompt("81", "writing", "Compose a post.")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ('{"id": "a", "task": "code"}', "no key 'prompt'"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "1", "task": "code", "prompt": "Hi"}\n' + line + "\n")
    with pytest.raises(SpecKVError) as refusal:
        load_prompts(str(path))
    assert str(refusal.value) == f"{path}: line 2: {reason}; each line needs id, task and prompt"


def test_a_file_that_is_not_utf_8_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "latin1.jsonl"
    path.write_bytes('{"id": 1, "task": "code", "prompt": "Größe?"}\n'.encode("latin-1"))
    with pytest.raises(SpecKVError) as refusal:
        load_prompts(str(path))
    assert str(refusal.value).startswith(f"{path}: not a readable prompt file (") and "\n" not in str(refusal.value)


def test_no_file_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(SpecKVError, match="no such prompt file; give train or heldout"):
        load_prompts("trian")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(SpecKVError, match="no prompts in it"):
        load_prompts(str(tmp_path / "empty.jsonl"))

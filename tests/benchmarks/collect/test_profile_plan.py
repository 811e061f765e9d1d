"""Which runs a profile consists of: balanced over tasks, γ and compressions."""

from __future__ import annotations

from collections import Counter

import pytest

from speckv.benchmarks.collect.profile import Run, plan
from speckv.benchmarks.prompts import TASKS, Prompt, load_prompts
from speckv.controller.errors import SpecKVError

LOADS, GAMMAS = ("fp32", "int8", "nf4"), (2, 4, 6, 8)


def planned(prompts: list[Prompt], per_task: int) -> list[Run]:
    return plan(prompts, LOADS, GAMMAS, 80, "a-pair", "bf16", per_task)


def test_the_shipped_profile_is_balanced() -> None:
    prompts = load_prompts("train")
    tasks = {prompt.id: prompt.task for prompt in prompts}
    runs = planned(prompts, per_task=24)
    assert len(set(runs)) == len(runs) == 4 * 24 * 3
    assert {(run.tokens, run.pair, run.draft_load) for run in runs} == {(80, "a-pair", "bf16")}

    each_prompt = Counter((run.prompt_id, run.target_load) for run in runs)
    assert set(each_prompt.values()) == {1} and len(each_prompt) == 4 * 24 * 3
    each_gamma = Counter((tasks[run.prompt_id], run.target_load, run.gamma) for run in runs)
    assert set(each_gamma.values()) == {6} and len(each_gamma) == 4 * 3 * 4
    gammas = {run.prompt_id: set[int]() for run in runs}
    for run in runs:
        gammas[run.prompt_id].add(run.gamma)
    assert {len(found) for found in gammas.values()} == {3}  # another γ under every compression


def test_it_takes_the_first_prompts_of_each_task() -> None:
    prompts = [Prompt(f"{task}-{number}", task, "text") for number in range(5) for task in TASKS]
    runs = planned(prompts, per_task=2)
    assert {run.prompt_id for run in runs} == {f"{task}-{number}" for task in TASKS for number in range(2)}
    assert planned(prompts, per_task=2) == runs


def test_too_few_prompts_of_a_task() -> None:
    prompts = [Prompt(f"{task}-{number}", task, "text") for task in TASKS for number in range(3)]
    with pytest.raises(SpecKVError, match="3 prompts per task are asked for and math has 2"):
        planned([prompt for prompt in prompts if prompt.id != "math-1"], per_task=3)

"""The released data of arXiv 2605.02888, read where it lies, checked and joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speckv.benchmarks.paper.published import (
    CELLS,
    COMPRESSIONS,
    TASKS,
    existing,
    read_published,
    read_table,
)
from speckv.controller.arrays import Floats, Ints
from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS, SIGNAL_FEATURES
from speckv.controller.records import Row, read_records

GAMMAS = (2, 4, 6, 8)
PROMPTS_PER_TASK = 5
TOKENS_PER_RUN = 80
"""Where the release's profiling loop stops: its last step drafts no more than what is left to 80 tokens."""


@dataclass(frozen=True)
class Release:
    """All step records in the released order (n of them), the runs they belong to, and what was published."""

    features: Floats  # (n, 6), the paper's order; float64, since an MLP trained on float32 differs
    rates: Floats  # (n,) acceptance rates
    tokens: Floats  # (n,) tokens produced
    drafted: Ints  # (n,) γ, or less in the last step of a run
    steps: Ints  # (n,) from 0 in each run
    compressions: NDArray[np.str_]  # (n,)
    tasks: NDArray[np.str_]  # (n,)
    prompts: Ints  # (n,) 0 … 19 in the order of the first runs: five of each task
    experiments: list[Row]  # 240 runs: compression, gamma, task, num_tokens, elapsed_sec, num_steps
    best_gamma: Mapping[tuple[str, str], int]  # by compression and task, by tokens per second
    published: Mapping[str, Any]  # PUBLISHED's tables as rows, and paper_numbers.json

    @property
    def gammas(self) -> Ints:
        """(n,) the γ each step is recorded under."""
        return self.features[:, 5].astype(np.int64)


def read_release(folder: Path) -> Release:
    """Read ``folder``; raises SpecKVError naming the file and the line that is missing or malformed."""
    if not folder.is_dir():
        raise SpecKVError(f"{folder}: no such folder; --data takes the folder of the released data")
    steps_file = existing(folder, "phase2_step_results.csv")
    rows = read_records(steps_file)  # as they are, in bits: the paper's predictors are fitted to these numbers
    for number, row in enumerate(rows, start=2):
        if row["gamma"] not in GAMMAS or row["task"] not in TASKS:
            raise SpecKVError(
                f"{steps_file}: row {number}: gamma {row['gamma']}, task {row['task']}: not the release's"
            )
    experiments = _read_experiments(existing(folder, "phase2_experiment_results.csv"))
    optimal = read_table(
        existing(folder, "phase2_optimal_gamma.csv"), {"compression": str, "task": str, "optimal_gamma": int}
    )
    best_gamma = {(row["compression"], row["task"]): row["optimal_gamma"] for row in optimal}
    if sorted(best_gamma) != sorted(CELLS) or not set(best_gamma.values()) <= set(GAMMAS):
        raise SpecKVError(f"{folder / 'phase2_optimal_gamma.csv'}: not one row and a known γ per compression and task")
    run = _join(rows, experiments, steps_file)
    names = list(dict.fromkeys(experiment["prompt"] for experiment in experiments))
    return Release(
        features=np.array(
            [
                [*(row[f] for f in SIGNAL_FEATURES), COMPRESSION_LEVELS[row["compression"]], row["gamma"]]
                for row in rows
            ],
            dtype=np.float64,
        ),
        rates=np.array([row["acceptance_rate"] for row in rows]),
        tokens=np.array([row["tokens_produced"] for row in rows], dtype=np.float64),
        drafted=_drafted(rows),
        steps=np.array([row["step"] for row in rows]),
        compressions=np.array([row["compression"] for row in rows]),
        tasks=np.array([row["task"] for row in rows]),
        prompts=np.array([names.index(experiments[number]["prompt"]) for number in run]),
        experiments=experiments,
        best_gamma=best_gamma,
        published=read_published(folder),
    )


def _read_experiments(path: Path) -> list[Row]:
    """One row per run; SpecKVError unless they are the release's grid of compressions, γ and prompts."""
    kinds = {"compression": str, "gamma": int, "task": str, "prompt": str}
    kinds |= {"num_tokens": int, "elapsed_sec": float, "num_steps": int}
    rows = read_table(path, kinds)
    prompts = list(dict.fromkeys((row["task"], row["prompt"]) for row in rows))
    grid = [(c, gamma, *prompt) for c in COMPRESSIONS for gamma in GAMMAS for prompt in prompts]
    if [(row["compression"], row["gamma"], row["task"], row["prompt"]) for row in rows] != grid:
        raise SpecKVError(f"{path}: not every prompt under every compression and γ; take the release's own file")
    if [task for task, _ in prompts] != [task for task in TASKS for _ in range(PROMPTS_PER_TASK)]:
        raise SpecKVError(f"{path}: not {PROMPTS_PER_TASK} prompts a task; take the release's own file")
    for number, row in enumerate(rows, start=2):
        if row["elapsed_sec"] <= 0:
            raise SpecKVError(f"{path}: line {number}: elapsed_sec is {row['elapsed_sec']}")
    return rows


def _join(rows: Sequence[Row], experiments: Sequence[Row], path: Path) -> list[int]:
    """The run of every step: a step 0 starts the next; each must be as its experiment says."""
    run = []
    number = -1
    for row in rows:
        number += row["step"] == 0
        run.append(number)
    lengths = np.bincount(run, minlength=len(experiments)).tolist() if run[0] == 0 else []
    if len(lengths) != len(experiments):
        raise SpecKVError(f"{path}: {run[-1] + 1} runs, and phase2_experiment_results.csv has {len(experiments)}")
    for row, number in zip(rows, run, strict=True):
        experiment = experiments[number]
        same = all(row[name] == experiment[name] for name in ("compression", "gamma", "task"))
        if not same or lengths[number] != experiment["num_steps"]:
            raise SpecKVError(
                f"{path}: run {number + 1} is not that of phase2_experiment_results.csv in the same place"
            )
    return run


def _drafted(rows: Sequence[Row]) -> Ints:
    """How many tokens each step really drafted: γ is recorded as asked, but the end of the run may cut it."""
    drafted = []
    produced = 0
    for row in rows:
        produced = 0 if row["step"] == 0 else produced
        drafted.append(min(row["gamma"], TOKENS_PER_RUN - produced))
        produced += row["tokens_produced"]
    return np.array(drafted)

"""Profile a pair: run fixed-γ speculation on prompts and write one record a round."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from speckv.benchmarks.collect.generation import end_tokens
from speckv.benchmarks.collect.lockstep import speculate
from speckv.benchmarks.collect.steps import Step, make_row
from speckv.benchmarks.common.journal import Journal
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.prompts import TASKS, Prompt
from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS, compression_level
from speckv.controller.records import Row, check_rows, write_records
from speckv.integrations.models import load_model, resolve
from speckv.integrations.models.loading import load_tokenizer


@dataclass(frozen=True)
class Run:
    """One generation of the plan; its fields identify it in the journal."""

    prompt_id: str
    target_load: str
    draft_load: str
    gamma: int
    tokens: int
    pair: str


def plan(
    prompts: Sequence[Prompt],
    loads: Sequence[str],
    gammas: Sequence[int],
    tokens: int,
    pair: str,
    draft_load: str,
    per_task: int,
) -> list[Run]:
    """Every prompt once per compression, γ rotating over a task's prompts, shifted by one per compression."""
    seen: Counter[str] = Counter()
    chosen = []
    for prompt in prompts:
        if seen[prompt.task] < per_task:
            chosen.append((seen[prompt.task], prompt))
            seen[prompt.task] += 1
    for task in TASKS:
        if 0 < seen[task] < per_task:
            raise SpecKVError(f"{per_task} prompts per task are asked for and {task} has {seen[task]}")
    return [
        Run(prompt.id, load, draft_load, gammas[(number + shift) % len(gammas)], tokens, pair)
        for shift, load in enumerate(loads)
        for number, prompt in chosen
    ]


def profile(
    out: Path,
    prompts: Sequence[Prompt],
    pair: str = "default",
    loads: Sequence[str] = ("bf16", "int8", "nf4"),
    draft_load: str = "bf16",
    gammas: Sequence[int] = (2, 4, 6, 8),
    tokens: int = 80,
    per_task: int = 24,
    batch: int = 1,
    progress: Report = lambda *_: None,
) -> int:
    """Run the plan, resuming ``out``'s journal, and write ``out`` (Parquet); returns the number of records.

    ``batch`` prompts run at once, so that the data costs fewer forwards; the recorded times are then those of the
    batch. The journal (``out`` with ``.partial.jsonl``) gets one line per finished batch, so a kill loses at most
    the batch in progress. It is deleted once ``out`` is written.
    """
    runs = plan(prompts, loads, gammas, tokens, pair, draft_load, per_task)
    journal = Journal(out.with_suffix(".partial.jsonl"))
    rows: dict[Run, list[Row]] = {}
    for entry in journal.read():
        for generated in entry["runs"]:
            rows[Run(**generated["run"])] = check_rows(generated["rows"], str(journal.path))
    texts = {prompt.id: prompt for prompt in prompts}
    todo = [run for run in runs if run not in rows]
    done = len(runs) - len(todo)
    progress("profile", done, len(runs))
    for load in dict.fromkeys(run.target_load for run in todo):
        session = _Session(pair, load, draft_load)
        for gamma in gammas:
            alike = [run for run in todo if (run.target_load, run.gamma) == (load, gamma)]
            alike.sort(key=lambda run: len(texts[run.prompt_id].text))  # a batch is padded to its longest prompt
            for group in (alike[start : start + batch] for start in range(0, len(alike), batch)):
                found = session.run(group, [texts[run.prompt_id] for run in group])
                journal.append({"runs": [{"run": asdict(run), "rows": found[run]} for run in group]})
                rows |= found
                done += len(group)
                progress("profile", done, len(runs))
        del session
        write_records(_in_order(runs, rows), out)  # usable already, while other compressions are still to come
    records = _in_order(runs, rows)
    write_records(records, out)
    journal.path.unlink(missing_ok=True)
    return len(records)


def _in_order(runs: Sequence[Run], rows: dict[Run, list[Row]]) -> list[Row]:
    return [row for run in runs for row in rows.get(run, [])]


class _Session:
    """A pair loaded at one compression, ready to run prompts."""

    def __init__(self, pair: str, load: str, draft_load: str) -> None:
        sources = resolve(pair)
        if sources.draft is None:
            raise SpecKVError(f"{pair}: its draft is the target with noise, which is not worth profiling")
        self.tokenizer = load_tokenizer(sources.target)
        self.target = load_model(sources.target, load)
        self.draft = load_model(sources.draft, draft_load)
        self.constants: Row = {
            "compression": list(COMPRESSION_LEVELS)[compression_level(load)],
            "target": shown(sources.target),
            "draft": shown(sources.draft),
            "target_dtype": str(self.target.dtype).removeprefix("torch."),
            "draft_dtype": str(self.draft.dtype).removeprefix("torch."),
            "versions": json.dumps({**versions(), **machine(), "threads": torch.get_num_threads()}),
        }

    def run(self, runs: Sequence[Run], prompts: Sequence[Prompt]) -> dict[Run, list[Row]]:
        """Run a batch of one γ; the rows of each run."""
        rows: dict[Run, list[Row]] = {run: [] for run in runs}

        def report(index: int, batch: int, outcome: Step) -> None:
            run, prompt = runs[index], prompts[index]
            constants = {**self.constants, "gamma": run.gamma, "task": prompt.task, "prompt_id": prompt.id}
            rows[run].append(make_row(outcome, constants | {"batch": batch}, len(rows[run])))

        inputs = [chat_inputs(self.tokenizer, prompt.text)["input_ids"][0] for prompt in prompts]
        speculate(self.target, self.draft, inputs, runs[0].gamma, runs[0].tokens, end_tokens(self.target), report)
        return rows


def shown(source: str) -> str:
    """A hub id as it is, a local folder by its name only."""
    return Path(source).name if Path(source).exists() else source


def chat_inputs(tokenizer: Any, *texts: str) -> Any:
    """A user's turn each through the model's chat template, as tensors, padded at the left."""
    turns = [[{"role": "user", "content": text}] for text in texts]
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=len(texts) > 1
    )

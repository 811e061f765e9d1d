"""`python -m speckv.benchmarks.end_to_end`: wall-clock of every mode on a real pair, interleaved prompt by prompt."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from speckv.benchmarks.command import run as run_command
from speckv.benchmarks.end_to_end_rows import judge, summary
from speckv.benchmarks.machine import machine, versions
from speckv.benchmarks.progress import progress
from speckv.benchmarks.prompts import TASKS, Prompt, load_prompts
from speckv.controller.errors import SpecKVError
from speckv.controller.files import write_whole
from speckv.controller.records import Journal

REGIMES = {"bf16": ("bf16", "bf16"), "int8": ("int8", "bf16"), "nf4": ("nf4", "bf16"), "nf4-draft4": ("nf4", "nf4")}
"""Compression of target and draft."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def balanced(prompts: list[Prompt], count: int) -> list[Prompt]:
    """The first ``count`` prompts when the tasks take turns."""
    by_task = [[prompt for prompt in prompts if prompt.task == task] for task in TASKS]
    turns = [tasks[number] for number in range(max(map(len, by_task))) for tasks in by_task if number < len(tasks)]
    if count > len(turns):
        raise SpecKVError(f"{count} prompts are asked for and the file has {len(turns)}")
    return turns[:count]


@app.command()
def end_to_end(
    framework: Annotated[str, typer.Option(help="transformers.")] = "transformers",
    regime: Annotated[list[str] | None, typer.Option(help=f"{', '.join(REGIMES)}; all when left out.")] = None,
    pair: Annotated[str, typer.Option(help="As for speckv demo.")] = "qwen2.5-coder",
    prompts: Annotated[int, typer.Option(help="Held-out prompts, tasks in turn.", min=4)] = 12,
    tokens: Annotated[int, typer.Option(help="New tokens per prompt.", min=8)] = 64,
    json_file: Annotated[Path | None, typer.Option("--json", help="Store every row in this file.")] = None,
    threads: Annotated[int, typer.Option(help="Threads for the models; 0 takes all cores.")] = 0,
) -> None:
    """Time plain decoding, fixed γ, transformers' default, the paper's policy and ours, side by side.

    Every finished prompt is kept in a journal beside the JSON file, so a run that was stopped goes on where it was;
    more prompts or regimes are added to it.
    """
    from speckv.benchmarks.end_to_end_transformers import Runner

    if framework != "transformers":
        raise SpecKVError(f"--framework {framework}: known is transformers")
    names = regime or list(REGIMES)
    if unknown := [name for name in names if name not in REGIMES]:
        raise SpecKVError(f"--regime {unknown[0]}: known are {', '.join(REGIMES)}")
    chosen = balanced(load_prompts("heldout"), prompts)
    journal = Journal(json_file.with_suffix(".partial.jsonl")) if json_file else None
    setting: dict[str, Any] = {"pair": pair, "tokens": tokens, "threads": threads or os.cpu_count() or 1}
    kept = [entry for entry in (journal.read() if journal else []) if entry["setting"] == setting]
    found = {(entry["regime"], entry["prompt_id"]): entry for entry in kept}
    with progress() as report:
        for name in names:
            todo = [prompt for prompt in chosen if (name, prompt.id) not in found]
            report(name, len(chosen) - len(todo), len(chosen))
            runner = Runner(pair, *REGIMES[name], tokens, setting["threads"]) if todo else None
            for number, prompt in enumerate(todo):
                assert runner is not None
                entry = {"setting": setting, "regime": name, **runner.run(prompt, number)}
                found[name, prompt.id] = entry
                if journal:
                    journal.append(entry)
                report(name, len(chosen) - len(todo) + number + 1, len(chosen))
            del runner
    ids = [prompt.id for prompt in chosen]
    entries = {name: [found[name, one] for one in ids] for name in names}
    result = judge(entries)
    summary(result).show()
    if json_file is not None:
        command = " ".join(["python -m speckv.benchmarks.end_to_end", *sys.argv[1:]])
        facts: dict[str, Any] = {"command": command, "framework": framework, **setting, "prompts": len(chosen)}
        facts |= {"versions": versions(), "machine": machine()}
        write_whole(json_file, json.dumps(facts | result | {"entries": entries}, indent=1) + "\n")


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()

"""The commands that run a pair of models: `speckv demo | profile | trace | calibrate`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from speckv.benchmarks.cli_app import ControllerOption, PairOption, ThreadsOption, app, console, say
from speckv.controller.errors import SpecKVError
from speckv.controller.extras import require

CompressionOption = Annotated[str, typer.Option(help="Of the target: bf16, fp32, fp16, int8 or nf4.")]
AUTO = "auto"
DraftOption = Annotated[str, typer.Option("--draft-compression", help="Of the draft.")]
RUNNING = ("torch", "transformers", "onnxruntime", "onnx")
"""The libraries by which a pair runs with a controller."""


def _prepare_torch(threads: int) -> None:
    """Thread count and quiet libraries, before any model is loaded."""
    import torch
    import transformers

    torch.set_num_threads(threads or os.cpu_count() or 1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@app.command()
def demo(
    pair: PairOption = "default",
    compression: Annotated[str, typer.Option(help="As elsewhere; auto: bf16, or fp32 on a CPU without it.")] = AUTO,
    draft_compression: Annotated[str, typer.Option(help="Of the draft.")] = AUTO,
    prompts: Annotated[int, typer.Option(help="How many held-out prompts.", min=1)] = 4,
    tokens: Annotated[int, typer.Option(help="New tokens per prompt.", min=1)] = 48,
    modes: Annotated[str, typer.Option(help="Comma-separated: plain, hf-default, fixed-N, paper, speckv.")] = "",
    controller: ControllerOption = "default",
    json_out: Annotated[Path | None, typer.Option("--json", help="Also store the figures in this file.")] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Get a real pair of models, generate in every mode, and print a table."""
    require(*RUNNING)
    import torch

    from speckv.benchmarks.demo import DEMO_MODES, as_json, compare, table
    from speckv.benchmarks.generation import Modes
    from speckv.benchmarks.machine import lacks_bf16, machine, versions
    from speckv.benchmarks.progress import progress
    from speckv.benchmarks.prompts import load_prompts
    from speckv.controller.files import write_whole
    from speckv.integrations.models import load_pair, resolve

    _prepare_torch(threads)
    dense = "fp32" if lacks_bf16() and not torch.cuda.is_available() else "bf16"
    compression, draft_compression = (dense if one == AUTO else one for one in (compression, draft_compression))
    with progress() as report:
        sources = resolve(pair, report)
        say(f"Models: {sources.origin}")
        report("load models", 0, 1)
        target, draft, tokenizer = load_pair(pair, compression, draft_compression)
        report("load models", 1, 1)
        chosen = load_prompts("heldout")[:prompts]
        names = tuple(modes.split(",")) if modes else DEMO_MODES
        lines = compare(Modes(target, draft, controller), tokenizer, chosen, names, tokens, report)
    title = f"{compression} target, {draft_compression} draft, {len(chosen)} prompts × {tokens} tokens, greedy"
    console.print(table(lines, len(chosen), title))
    if json_out is not None:
        facts: dict[str, Any] = {"command": " ".join(["speckv", *sys.argv[1:]]), "pair": pair, "target": compression}
        facts |= {"draft": draft_compression, "tokens": tokens, "versions": versions(), "machine": machine()}
        write_whole(json_out, json.dumps(as_json(lines, len(chosen), **facts), indent=1) + "\n")
    if compression != "fp32":
        console.print(
            "Identical output is exact in fp32. In lower precision a near-tie may fall the other way when several "
            "tokens are verified together, whoever does the speculating.",
            style="dim",
        )


@app.command()
def profile(
    out: Annotated[Path, typer.Argument(help="The Parquet file to write; run again to resume.")],
    pair: PairOption = "default",
    compressions: Annotated[str, typer.Option(help="Of the target, comma-separated.")] = "bf16,int8,nf4",
    draft_compression: DraftOption = "bf16",
    gammas: Annotated[str, typer.Option(help="γ to run with, rotated over the prompts.")] = "2,4,6,8",
    prompts: Annotated[str, typer.Option(help="train, heldout, or a JSONL file with id, task and prompt.")] = "train",
    per_task: Annotated[int, typer.Option(help="Prompts per task.", min=1)] = 24,
    tokens: Annotated[int, typer.Option(help="New tokens per prompt.", min=4)] = 80,
    batch: Annotated[int, typer.Option(help="Prompts per forward; the times are then those of the batch.", min=1)] = 1,
    threads: ThreadsOption = 0,
) -> None:
    """Run speculation on a pair and write one record per round, to train a controller from."""
    require(*RUNNING, "pyarrow")
    from speckv.benchmarks.profile import profile as run_profile
    from speckv.benchmarks.progress import progress
    from speckv.benchmarks.prompts import load_prompts

    _prepare_torch(threads)
    with progress() as report:
        count = run_profile(
            out,
            load_prompts(prompts),
            pair,
            compressions.split(","),
            draft_compression,
            _integers(gammas, "gammas"),
            tokens,
            per_task,
            batch,
            report,
        )
    say(f"{out}: {count} records; next: speckv train {out} --out controller.onnx")


@app.command()
def trace(
    out: Annotated[Path, typer.Argument(help="The Parquet file to write; run again to resume.")],
    pair: PairOption = "default",
    compression: CompressionOption = "bf16",
    draft_compression: DraftOption = "bf16",
    prompts: Annotated[str, typer.Option(help="heldout, train, or a JSONL file with id, task and prompt.")] = "heldout",
    tokens: Annotated[int, typer.Option(help="New tokens per prompt.", min=4)] = 96,
    depth: Annotated[int, typer.Option(help="Tokens the draft runs ahead from every position.", min=1)] = 20,
    batch: Annotated[int, typer.Option(help="Prompts the target decodes at once.", min=1)] = 16,
    threads: ThreadsOption = 0,
) -> None:
    """Record what the draft would propose from every position of the target's greedy text, to replay policies on."""
    require(*RUNNING, "pyarrow")
    from speckv.benchmarks.progress import progress
    from speckv.benchmarks.prompts import load_prompts
    from speckv.benchmarks.trace_making import make_traces

    _prepare_torch(threads)
    with progress() as report:
        count = make_traces(
            out, load_prompts(prompts), pair, compression, draft_compression, tokens, depth, batch, report
        )
    say(f"{out}: {count} positions; next: python -m speckv.benchmarks.replay")


@app.command()
def calibrate(
    pair: PairOption = "default",
    compression: CompressionOption = "bf16",
    draft_compression: DraftOption = "bf16",
    repeats: Annotated[int, typer.Option(help="Timings of every forward, of which the median counts.", min=1)] = 5,
    out: Annotated[Path | None, typer.Option(help="Also write the costs to this JSON file.")] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Time the pair's forwards on this machine; attach() finds the result from then on."""
    require(*RUNNING)
    from speckv.benchmarks.progress import progress
    from speckv.controller.calibration import write_costs
    from speckv.integrations.cost_store import remember
    from speckv.integrations.models import load_pair
    from speckv.integrations.transformers.calibrate import about
    from speckv.integrations.transformers.calibrate import calibrate as measure

    _prepare_torch(threads)
    with progress() as report:
        target, draft, _ = load_pair(pair, compression, draft_compression, progress=report)
        costs = measure(target, draft, repeats, report)
    shown = Table(title="Milliseconds per forward")
    for heading in ("rows", "target", "draft"):
        shown.add_column(heading, justify="right")
    for rows, ms in costs.verify.items():
        shown.add_row(str(rows), f"{ms:.1f}", f"{costs.draft[rows]:.1f}" if rows in costs.draft else "")
    shown.add_row("per 1,000 tokens of context", f"+{costs.verify_context:.1f}", f"+{costs.draft_context:.1f}")
    console.print(shown)
    say(f"{remember(about(target, draft), costs)}: attach() uses these costs for this pair from now on")
    if out is not None:
        write_costs(costs, about(target, draft), out)


def _integers(text: str, option: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise SpecKVError(f"--{option} {text}: give whole numbers with commas between, such as 2,4,6,8") from None
    if not all(1 <= value <= 20 for value in values):
        raise SpecKVError(f"--{option} {text}: each must be within 1 … 20")
    return values

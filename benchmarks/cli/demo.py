"""`speckv demo`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from speckv.benchmarks.cli.app import (
    RUNNING,
    ControllerOption,
    PairOption,
    ThreadsOption,
    app,
    check_pair,
    prepare_torch,
    say,
)
from speckv.controller.extras import require

AUTO = "auto"


@app.command()
def demo(
    pair: PairOption = "default",
    compression: Annotated[str, typer.Option(help="As elsewhere; auto: bf16, or fp32 on a CPU without it.")] = AUTO,
    draft_compression: Annotated[str, typer.Option(help="Of the draft.")] = AUTO,
    prompts: Annotated[int, typer.Option(help="How many held-out prompts.", min=1)] = 4,
    tokens: Annotated[int, typer.Option(help="New tokens per prompt.", min=1)] = 48,
    modes: Annotated[str, typer.Option(help="Comma-separated: plain, hf-default, fixed-N, paper, speckv.")] = "",
    controller: ControllerOption = "default",
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Also store the figures in this file.", dir_okay=False)
    ] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Get a real pair of models, generate in every mode, and print a table."""
    require(*RUNNING)
    import torch

    from speckv.benchmarks.bench.demo import DEMO_MODES, as_json, compare, table
    from speckv.benchmarks.collect.generation import PLAIN, STOCK, Modes, settings_of
    from speckv.benchmarks.common.machine import lacks_bf16, machine, versions
    from speckv.benchmarks.common.progress import progress
    from speckv.benchmarks.prompts import load_prompts
    from speckv.controller.files import write_whole
    from speckv.integrations.models import load_pair, resolve
    from speckv.integrations.runtime import Controller

    prepare_torch(threads)
    dense = "fp32" if lacks_bf16() and not torch.cuda.is_available() else "bf16"
    compression, draft_compression = (dense if one == AUTO else one for one in (compression, draft_compression))
    names = tuple(modes.split(",")) if modes else DEMO_MODES
    for name in {*names} - {PLAIN, STOCK}:
        settings_of(name)
    check_pair(pair, compression, draft_compression)
    Controller.load(controller)  # so that what is wrong with any of these is said before models are loaded
    with progress() as report:
        sources = resolve(pair, report)
        say(f"Models: {sources.origin}")
        report("load models", 0, 1)
        target, draft, tokenizer = load_pair(pair, compression, draft_compression)
        report("load models", 1, 1)
        chosen = load_prompts("heldout")[:prompts]
        lines = compare(Modes(target, draft, controller), tokenizer, chosen, names, tokens, report)
    title = f"{compression} target, {draft_compression} draft, {len(chosen)} prompts × {tokens} tokens, greedy"
    table(lines, len(chosen), title, exact=compression == "fp32").show()
    if json_out is not None:
        facts: dict[str, Any] = {"command": " ".join(["speckv", *sys.argv[1:]]), "pair": pair, "target": compression}
        facts |= {"draft": draft_compression, "tokens": tokens, "versions": versions(), "machine": machine()}
        write_whole(json_out, json.dumps(as_json(lines, len(chosen), **facts), indent=1) + "\n")

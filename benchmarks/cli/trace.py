"""`speckv trace`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speckv.benchmarks.cli.app import (
    RUNNING,
    CompressionOption,
    DraftOption,
    PairOption,
    ThreadsOption,
    app,
    check_pair,
    must_be_parquet,
    prepare_torch,
    say,
)
from speckv.controller.extras import require


@app.command()
def trace(
    out: Annotated[Path, typer.Argument(help="The Parquet file to write; run again to resume.", dir_okay=False)],
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
    from speckv.benchmarks.collect.trace_making import make_traces
    from speckv.benchmarks.common.progress import progress
    from speckv.benchmarks.prompts import load_prompts

    must_be_parquet(out)
    check_pair(pair, compression, draft_compression)
    prepare_torch(threads)
    with progress() as report:
        count = make_traces(
            out, load_prompts(prompts), pair, compression, draft_compression, tokens, depth, batch, report
        )
    say(f"{out}: {count} positions; next: python -m speckv.benchmarks.replay")

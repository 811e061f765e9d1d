"""`speckv profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speckv.benchmarks.cli.app import (
    RUNNING,
    DraftOption,
    PairOption,
    ThreadsOption,
    app,
    check_pair,
    must_be_parquet,
    prepare_torch,
    say,
)
from speckv.controller.errors import SpecKVError
from speckv.controller.extras import require


@app.command()
def profile(
    out: Annotated[Path, typer.Argument(help="The Parquet file to write; run again to resume.", dir_okay=False)],
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
    from speckv.benchmarks.collect.profile import profile as run_profile
    from speckv.benchmarks.common.progress import progress
    from speckv.benchmarks.prompts import load_prompts

    must_be_parquet(out)
    check_pair(pair, *compressions.split(","), draft_compression)
    prepare_torch(threads)
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


def _integers(text: str, option: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise SpecKVError(f"--{option} {text}: give whole numbers with commas between, such as 2,4,6,8") from None
    if not all(1 <= value <= 20 for value in values):
        raise SpecKVError(f"--{option} {text}: each must be within 1 … 20")
    return values

"""`speckv calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from speckv.benchmarks.cli.app import (
    RUNNING,
    CompressionOption,
    DraftOption,
    PairOption,
    ThreadsOption,
    app,
    console,
    prepare_torch,
    say,
)
from speckv.controller.extras import require


@app.command()
def calibrate(
    pair: PairOption = "default",
    compression: CompressionOption = "bf16",
    draft_compression: DraftOption = "bf16",
    repeats: Annotated[int, typer.Option(help="Timings of every forward, of which the median counts.", min=1)] = 5,
    out: Annotated[Path | None, typer.Option(help="Also write the costs to this JSON file.", dir_okay=False)] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Time the pair's forwards on this machine; attach() finds the result from then on."""
    require(*RUNNING)
    from speckv.benchmarks.common.progress import progress
    from speckv.controller.calibration import write_costs
    from speckv.integrations.cost_store import remember
    from speckv.integrations.models import load_pair
    from speckv.integrations.transformers.calibrate import about
    from speckv.integrations.transformers.calibrate import calibrate as measure

    prepare_torch(threads)
    with progress() as report:
        target, draft, _ = load_pair(pair, compression, draft_compression, progress=report)
        costs = measure(target, draft, repeats, report)
    shown = Table(title="Milliseconds per forward")
    for heading in ("sequences", "rows", "target", "draft"):
        shown.add_column(heading, justify="right")
    for size, of in costs.by_requests.items():
        for rows, ms in of.verify.items():
            shown.add_row(str(size), str(rows), f"{ms:.1f}", f"{of.draft[rows]:.1f}" if rows in of.draft else "")
    context = (f"+{ms:.1f}" for ms in (costs.verify_context, costs.draft_context))
    shown.add_row("each", "per 1,000 tokens of context", *context)
    console.print(shown)
    say(f"{remember(about(target, draft), costs)}: attach() uses these costs for this pair from now on")
    if out is not None:
        write_costs(costs, about(target, draft), out)

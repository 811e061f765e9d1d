"""`speckv report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speckv.benchmarks.cli.app import ResultArgument, app, say
from speckv.controller.extras import require


@app.command()
def report(
    result: ResultArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.", file_okay=False)] = Path("report"),
) -> None:
    """Write a page about a result, complete in one file, and its plots as SVG and PNG beside it."""
    require("matplotlib")
    from speckv.benchmarks.report.page import write
    from speckv.benchmarks.report.reading import read

    page, *plots = write(read(result), out)
    say(f"{page}: {page.stat().st_size} bytes; {len(plots)} files of plots beside it")

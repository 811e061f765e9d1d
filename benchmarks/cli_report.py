"""The commands that read a result of `speckv bench`: `speckv report | recommend`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speckv.benchmarks.cli_app import app, say
from speckv.controller.extras import require

ResultArgument = Annotated[Path, typer.Argument(help="A JSON file that `speckv bench` wrote.", show_default=False)]


@app.command()
def report(
    result: ResultArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path("report"),
) -> None:
    """Write a page about a result, complete in one file, and its plots as SVG and PNG beside it."""
    require("matplotlib")
    from speckv.benchmarks.report.page import write
    from speckv.benchmarks.report.reading import read

    page, *plots = write(read(result), out)
    say(f"{page}: {page.stat().st_size} bytes; {len(plots)} files of plots beside it")


@app.command()
def recommend(result: ResultArgument) -> None:
    """Print which settings to use where a result was measured, or that speculation does not pay there, and why."""
    from speckv.benchmarks.report.reading import read
    from speckv.benchmarks.report.recommend import recommendations

    say("\n\n".join(recommendations(read(result))))

"""`speckv doctor`."""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from speckv.benchmarks.cli.app import app, console
from speckv.benchmarks.common.terminal import plain


@app.command()
def doctor() -> None:
    """Print versions, devices and providers, and what is supported here; exit code 1 when something does not fit."""
    from speckv.benchmarks.cli.findings import examine

    findings = examine()
    marks = {True: Text("ok", "green"), False: Text("not ok", "red"), None: Text("–", "dim")}
    drawn = Table("check", "found", "", show_header=False)
    for finding in findings:
        drawn.add_row(plain(finding.what), plain(finding.found), marks[finding.fits])
    console.print(drawn)
    if any(finding.fits is False for finding in findings):
        raise typer.Exit(1)

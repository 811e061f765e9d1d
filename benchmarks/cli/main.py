"""The entry point `speckv`: its commands register themselves from the modules imported here, one line each."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Annotated

import typer

from speckv.benchmarks.cli import (  # noqa: F401
    bench,
    calibrate,
    demo,
    doctor,
    exchange,
    inspect,
    profile,
    recommend,
    report,
    trace,
    train,
)
from speckv.benchmarks.cli.app import app
from speckv.benchmarks.common.command import run

__all__ = ["app", "main"]


def _show(wanted: bool) -> None:
    if wanted:
        print(f"speckv {importlib.metadata.version('speckv')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What `speckv` itself takes; its help is the application's."""


def main() -> None:
    """Run the command that is asked for, or show which there are."""
    run(app, "speckv", sys.argv[1:] or ["--help"])


if __name__ == "__main__":
    main()

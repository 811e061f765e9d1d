"""What every `python -m speckv.benchmarks.NAME` ends with: one-line errors, and a result that is stored whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from speckv.controller.errors import SpecKVError
from speckv.controller.files import write_whole


def run(app: typer.Typer) -> None:
    """Run the command; a user's mistake is one line on stderr and exit code 1."""
    try:
        app()
    except SpecKVError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


def show_and_store(result: dict[str, Any], path: Path | None) -> None:
    """Print ``result`` as JSON, and store it where a path is given."""
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if path is not None:
        write_whole(path, text)

"""The command line, `speckv`: its commands register themselves from the modules imported here."""

from __future__ import annotations

import sys
from typing import Any, NoReturn, cast

import typer
from rich.table import Table
from rich.text import Text

from speckv.benchmarks import cli_bench, cli_models, cli_report, cli_training
from speckv.benchmarks.cli_app import app, console
from speckv.benchmarks.terminal import plain
from speckv.controller.errors import SpecKVError
from speckv.controller.extras import missing

__all__ = ["app", "cli_bench", "cli_models", "cli_report", "cli_training", "main"]

USAGE_ERRORS = cast("tuple[type[Exception], ...]", typer.BadParameter.__bases__)
"""What typer raises for a wrong command line; some of its versions have it from click, others bring it along."""


@app.command()
def doctor() -> None:
    """Print versions, devices and providers, and what is supported here; exit code 1 when something does not fit."""
    from speckv.benchmarks.doctor import examine

    findings = examine()
    marks = {True: Text("ok", "green"), False: Text("not ok", "red"), None: Text("–", "dim")}
    drawn = Table("check", "found", "", show_header=False)
    for finding in findings:
        drawn.add_row(plain(finding.what), plain(finding.found), marks[finding.fits])
    console.print(drawn)
    if any(finding.fits is False for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2, an interruption exit code 130."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="speckv", standalone_mode=False)
    except (SpecKVError, OSError) as error:
        _fail(str(error))
    except USAGE_ERRORS as error:
        _fail(_usage(error))
    except ModuleNotFoundError as error:
        _fail(missing((error.name or str(error)).partition(".")[0]))
    else:
        raise SystemExit(code)


def _usage(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "speckv"
    return f"{error.format_message().rstrip('.')}; see `{command} --help`"


def _fail(text: str) -> NoReturn:
    print(f"speckv: {plain(' '.join(text.split()))}", file=sys.stderr)
    raise SystemExit(2) from None


if __name__ == "__main__":
    main()

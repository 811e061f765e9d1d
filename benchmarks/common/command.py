"""The one way in which a command runs, and ends: its result whole, or one line that says what was wrong."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer

from speckv.benchmarks.common.terminal import plain
from speckv.controller.errors import SpecKVError
from speckv.controller.extras import missing
from speckv.controller.files import write_whole

USAGE_ERRORS = cast("tuple[type[Exception], ...]", typer.BadParameter.__bases__)
"""What typer raises for a wrong command line; some of its versions have it from click, others bring it along."""


JsonFile = Annotated[Path | None, typer.Option("--json", help="Store every figure in this file.", dir_okay=False)]


def make_app() -> typer.Typer:
    """For a command that `python -m` runs."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def run(app: typer.Typer, name: str = "", arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``app``: a user's mistake is one line on stderr and exit code 2, an interruption exit code 130.

    Terminated it ends as interrupted, with 143: what it has started, a server say, does not stay behind.
    ``name`` is what the user calls it, by default `python -m` and the module; ``arguments`` are the process's.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = name or (f"python -m {spec.name.removesuffix('.__main__')}" if spec else Path(sys.argv[0]).name)
    given = sys.argv[1:] if arguments is None else list(arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
    try:
        code = app(args=given, prog_name=name, standalone_mode=False)
    except (SpecKVError, OSError) as error:
        text = str(error)
    except USAGE_ERRORS as error:
        text = _usage(error, name)
    except ModuleNotFoundError as error:
        text = missing((error.name or str(error)).partition(".")[0])
    else:
        raise SystemExit(code)
    print(f"speckv: {plain(' '.join(text.split()))}", file=sys.stderr)
    raise SystemExit(2)


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _usage(error: Any, name: str) -> str:
    command = error.ctx.command_path if error.ctx else name
    return f"{error.format_message().rstrip('.')}; see `{command} --help`"


def show_and_store(result: dict[str, Any], path: Path | None) -> None:
    """Print ``result`` as JSON, and store it where a path is given."""
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if path is not None:
        write_whole(path, text)

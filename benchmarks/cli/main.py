"""The entry point `speckv`: its commands register themselves from the modules imported here, one line each."""

from __future__ import annotations

import sys

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


def main() -> None:
    """Run the command that is asked for, or show which there are."""
    run(app, "speckv", sys.argv[1:] or ["--help"])


if __name__ == "__main__":
    main()

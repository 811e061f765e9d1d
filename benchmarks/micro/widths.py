"""`python -m speckv.benchmarks.micro.widths`: what SGLang takes to start and to hold with more and more widths."""

from __future__ import annotations

import re
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from speckv.benchmarks.bench.in_sglang import folders, own_python
from speckv.benchmarks.bench.serving import wait_for
from speckv.benchmarks.bench.sglang_server import Server
from speckv.benchmarks.common.command import JsonFile, make_app, show_and_store
from speckv.benchmarks.common.command import run as run_command
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.common.progress import progress
from speckv.controller.errors import SpecKVError

LINE = re.compile(r"speckv: (\d+) states built in ([\d.]+) s and (-?[\d.]+) MiB")
CEILINGS = (1, 4, 8, 12, 20)

app = make_app()


@app.command()
def widths(
    json_file: JsonFile = None,
    pair: Annotated[str, typer.Option(help="As for speckv demo.")] = "qwen2.5-coder",
    sglang_python: Annotated[str, typer.Option(help="The Python that has SGLang, if it is another one.")] = "",
) -> None:
    """Start a server for each ceiling; store start-up seconds, and seconds and MiB of building its widths."""
    rows: list[dict[str, Any]] = []
    with progress() as report, ExitStack() as held:
        target, draft = folders(pair, held, report)
        for number, ceiling in enumerate(CEILINGS):
            options = ["--speculative-algorithm", "SPECKV", "--speculative-draft-model-path", draft]
            options += ["--speculative-num-steps", str(ceiling), "--max-total-tokens", "4096"]
            begun = time.monotonic()
            server = Server(
                Path(target), *options, dtype="bfloat16", threads=None, python=sglang_python or own_python()
            )
            try:
                found = LINE.search(wait_for(server, f"ceiling {ceiling}").log.read_text(errors="replace"))
                if found is None:
                    raise SpecKVError("the server's log does not say what its widths cost; install this speckv there")
                rows.append({"ceiling": ceiling, "widths": int(found[1]), "start_s": time.monotonic() - begun})
                rows[-1] |= {"widths_s": float(found[2]), "widths_mib": float(found[3])}
            finally:
                server.stop()
            report("widths", number + 1, len(CEILINGS))
    command = " ".join(["python -m speckv.benchmarks.micro.widths", *sys.argv[1:]])
    result = {"command": command, "pair": pair, "rows": rows, "versions": versions(), "machine": machine()}
    show_and_store(result, json_file)


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()

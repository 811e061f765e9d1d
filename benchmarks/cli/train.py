"""`speckv train`: from step records and traces to an artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speckv.benchmarks.cli.app import app, console, must_be_onnx, say
from speckv.controller.extras import require


@app.command()
def train(
    records: Annotated[Path, typer.Argument(help="Records of `speckv profile`, or a CSV with the paper's columns.")],
    out: Annotated[Path, typer.Option(help="The .onnx artefact to write.", dir_okay=False)] = Path("controller.onnx"),
    seed: Annotated[int, typer.Option(help="Of the split and of the training.", min=0, max=2**32 - 1)] = 0,
    estimator: Annotated[
        str, typer.Option(help="Of the acceptance head: mlp16, mlp32, ridge, rf10 or rf100.")
    ] = "mlp16",
    entropy_unit: Annotated[
        str, typer.Option(help="Of the records: nats, as `speckv profile` writes, or bits, as the paper released.")
    ] = "nats",
    traces: Annotated[
        list[Path] | None,
        typer.Option(help="Traces of `speckv trace` that the survival head learns from (repeatable)."),
    ] = None,
) -> None:
    """Train a controller on step records and export it to one ONNX file."""
    require("sklearn", "skl2onnx", "pyarrow", "onnxruntime", "onnx")
    from speckv.benchmarks.collect.traces import read_sequences
    from speckv.export.build import build

    must_be_onnx(out)
    artefact = build(
        records, out, seed, estimator, entropy_unit, read_sequences(traces or ()), [one.name for one in traces or ()]
    )
    training = artefact.metadata.training
    console.print_json(data=training["metrics"])
    if early := [name for name, ended in training["converged"].items() if not ended]:
        say(
            f"The {' and '.join(early)} training ended at its limit of iterations, not by itself; judge by the metrics."
        )
    say(f"{out}: {len(artefact.content)} bytes, sha256 {artefact.sha256}")

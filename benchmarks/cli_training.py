"""The commands that make, show and exchange controllers: `speckv train | inspect | export | import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speckv.benchmarks.cli_app import app, console, say
from speckv.controller.errors import SpecKVError
from speckv.controller.extras import require

if TYPE_CHECKING:
    from speckv.export.artefact import Artefact

SourceArgument = Annotated[
    Path, typer.Argument(help="default, an .onnx artefact, published weights (.npz), or a folder of either.")
]


@app.command()
def train(
    records: Annotated[Path, typer.Argument(help="Records of `speckv profile`, or a CSV with the paper's columns.")],
    out: Annotated[Path, typer.Option(help="The .onnx artefact to write.")] = Path("controller.onnx"),
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
    from speckv.benchmarks.build import build

    _must_be_onnx(out)
    artefact = build(records, out, seed, estimator, entropy_unit, traces or ())
    training = artefact.metadata.training
    console.print_json(data=training["metrics"])
    if early := [name for name, ended in training["converged"].items() if not ended]:
        say(
            f"The {' and '.join(early)} training ended at its limit of iterations, not by itself; judge by the metrics."
        )
    say(f"{out}: {len(artefact.content)} bytes, sha256 {artefact.sha256}")


@app.command()
def inspect(source: SourceArgument) -> None:
    """Check a controller and print what it says about itself."""
    import msgspec

    artefact = _open(source)
    say(f"{artefact.source}\nsha256 {artefact.sha256}")
    say(msgspec.json.format(msgspec.json.encode(artefact.metadata)).decode())


@app.command()
def export(
    source: SourceArgument, out: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)]
) -> None:
    """Write a folder to share: artefact, config.json, model card, and weights in the paper's form if they fit it."""
    from speckv.export.exchange import save_folder

    for path in save_folder(_open(source), out):
        say(f"{path}: {path.stat().st_size} bytes")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="Published weights (.npz), or the folder that holds them.")],
    out: Annotated[Path, typer.Option(help="The .onnx artefact to write.")] = Path("controller.onnx"),
) -> None:
    """Make an artefact of the paper's published weights, which take bits unless their config.json says nats."""
    from speckv.controller.files import write_whole
    from speckv.export.exchange import WEIGHTS, import_weights

    _must_be_onnx(out)
    artefact = import_weights(source / WEIGHTS if source.is_dir() else source)
    write_whole(out, artefact.content)
    say(f"{out}: {len(artefact.content)} bytes, sha256 {artefact.sha256}")


def _open(source: Path) -> Artefact:
    from speckv.export.exchange import open_controller
    from speckv.integrations.runtime import DEFAULT_ARTEFACT

    return open_controller(DEFAULT_ARTEFACT if str(source) == "default" else source)


def _must_be_onnx(out: Path) -> None:
    if out.suffix != ".onnx":
        raise SpecKVError(f"--out {out}: must end in .onnx, by which an artefact is known")

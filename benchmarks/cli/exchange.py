"""`speckv export` and `speckv import`: artefacts as others have them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speckv.benchmarks.cli.app import SourceArgument, app, must_be_onnx, open_source, say
from speckv.controller.errors import SpecKVError


@app.command()
def export(
    source: SourceArgument,
    out: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)],
) -> None:
    """Write a folder to share: artefact, config.json, model card, and weights in the paper's form if they fit it."""
    from speckv.export.exchange import save_folder

    for path in save_folder(open_source(source), out):
        say(f"{path}: {path.stat().st_size} bytes")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="Published weights (.npz), or the folder that holds them.")],
    out: Annotated[Path, typer.Option(help="The .onnx artefact to write.", dir_okay=False)] = Path("controller.onnx"),
) -> None:
    """Make an artefact of the paper's published weights, which take bits unless their config.json says nats."""
    from speckv.controller.files import write_whole
    from speckv.export.exchange import WEIGHTS, import_weights

    must_be_onnx(out)
    weights = source / WEIGHTS if source.is_dir() else source
    if not weights.exists():
        raise SpecKVError(f"{weights}: no such file; give published weights (.npz), or the folder that holds {WEIGHTS}")
    artefact = import_weights(weights)
    write_whole(out, artefact.content)
    say(f"{out}: {len(artefact.content)} bytes, sha256 {artefact.sha256}")

"""What the parts of the command line share: the application they register with, and how it speaks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speckv.benchmarks.common.progress import hold_back_others
from speckv.benchmarks.common.terminal import make_console, plain
from speckv.controller.errors import SpecKVError

if TYPE_CHECKING:
    from speckv.export.artefact import Artefact

app = typer.Typer(
    help="SpecKV chooses how many tokens to speculate, per step, for the most tokens per second.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = make_console()

PairOption = Annotated[
    str,
    typer.Option(
        help="default (from the hub, else mirrored), qwen2.5-coder, smollm2, or TARGET,DRAFT as ids or folders."
    ),
]
CompressionOption = Annotated[str, typer.Option(help="Of the target: bf16, fp32, fp16, int8 or nf4.")]
DraftOption = Annotated[str, typer.Option("--draft-compression", help="Of the draft.")]
ControllerOption = Annotated[str, typer.Option(help="default, or the path of an .onnx artefact.")]
ThreadsOption = Annotated[int, typer.Option(help="Threads for the models; 0 takes all cores.", min=0)]
SourceArgument = Annotated[
    Path, typer.Argument(help="default, an .onnx artefact, published weights (.npz), or a folder of either.")
]
ResultArgument = Annotated[Path, typer.Argument(help="A JSON file that `speckv bench` wrote.", show_default=False)]

RUNNING = ("torch", "transformers", "onnxruntime", "onnx")
"""The libraries by which a pair runs with a controller."""


def say(text: str) -> None:
    """Print ``text``, some of which may be a stranger's, as it is, and no line of it broken."""
    console.print(plain(text), soft_wrap=True)


def prepare_torch(threads: int) -> None:
    """Thread count and quiet libraries, before any model is loaded."""
    import torch
    import transformers

    torch.set_num_threads(threads or os.cpu_count() or 1)
    transformers.logging.set_verbosity_error()
    hold_back_others()


def check_pair(pair: str, *compressions: str) -> None:
    """Raise SpecKVError for a ``--pair`` or compression that is none, before anything begins.

    What a pair's name stands for is fetched later.
    """
    from speckv.integrations.models.catalog import PAIRS
    from speckv.integrations.models.loading import quantization, resolve

    if pair not in ("default", *PAIRS):
        resolve(pair).check()
    for compression in compressions:
        quantization(compression)


def must_be_onnx(out: Path) -> None:
    """Refuse a file for an artefact that could not be told from others."""
    if out.suffix != ".onnx":
        raise SpecKVError(f"--out {out}: must end in .onnx, by which an artefact is known")


def must_be_parquet(out: Path) -> None:
    """Refuse a file for records or traces that would not be found, or be taken for CSV, when it is read."""
    if out.suffix != ".parquet":
        raise SpecKVError(f"{out}: must end in .parquet, by which it is known when it is read")


def open_source(source: Path) -> Artefact:
    """The controller that a ``SourceArgument`` names."""
    from speckv.export.exchange import open_controller
    from speckv.integrations.runtime import DEFAULT_ARTEFACT

    return open_controller(DEFAULT_ARTEFACT if str(source) == "default" else source)

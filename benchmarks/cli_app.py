"""What the parts of the command line share: the application they register with, and how it speaks."""

from __future__ import annotations

from typing import Annotated

import typer

from speckv.benchmarks.terminal import make_console, plain

app = typer.Typer(
    help="SpecKV chooses how many tokens to speculate, per step, for the most tokens per second.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = make_console()

PairOption = Annotated[
    str,
    typer.Option(
        help="default (from the hub, else carried), qwen2.5-coder, smollm2, or TARGET,DRAFT as ids or folders."
    ),
]
ControllerOption = Annotated[str, typer.Option(help="default, or the path of an .onnx artefact.")]
ThreadsOption = Annotated[int, typer.Option(help="Threads for the models; 0 takes all cores.", min=0)]


def say(text: str) -> None:
    """Print ``text``, some of which may be a stranger's, as it is, and no line of it broken."""
    console.print(plain(text), soft_wrap=True)

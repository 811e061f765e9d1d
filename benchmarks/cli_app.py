"""What the parts of the command line share: the application they register with, and how it speaks."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    help="SpecKV chooses how many tokens to speculate, per step, for the most tokens per second.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

PairOption = Annotated[
    str,
    typer.Option(
        help="default (from the hub, else carried), qwen2.5-coder, smollm2, or TARGET,DRAFT as ids or folders."
    ),
]
ControllerOption = Annotated[str, typer.Option(help="default, or the path of an .onnx artefact.")]
ThreadsOption = Annotated[int, typer.Option(help="Threads for the models; 0 takes all cores.", min=0)]


def say(text: str) -> None:
    """Print ``text``, some of which may be a stranger's, as it is: nothing in it is markup or steers the terminal."""
    plain = "".join(character if character.isprintable() or character == "\n" else "?" for character in text)
    console.print(plain, markup=False, highlight=False, soft_wrap=True)

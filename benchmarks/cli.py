"""The command line: `speckv demo | profile | train | inspect | export | import | doctor`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console
from rich.table import Table

from speckv.controller.errors import SpecKVError

if TYPE_CHECKING:
    from speckv.export.artefact import Artefact

USAGE_ERRORS = cast("tuple[type[Exception], ...]", typer.BadParameter.__bases__)
"""What typer raises for a wrong command line; some of its versions have it from click, others bring it along."""

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
SourceArgument = Annotated[
    Path, typer.Argument(help="default, an .onnx artefact, published weights (.npz), or a folder of either.")
]
ThreadsOption = Annotated[int, typer.Option(help="Threads for the models; 0 takes all cores.")]


def _prepare_torch(threads: int) -> None:
    """Thread count and quiet libraries, before any model is loaded."""
    import torch
    import transformers

    torch.set_num_threads(threads or os.cpu_count() or 1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@app.command()
def demo(
    pair: PairOption = "default",
    compression: Annotated[str, typer.Option(help="Of the target: bf16, fp32, fp16, int8 or nf4.")] = "bf16",
    draft_compression: Annotated[str, typer.Option(help="Of the draft.")] = "bf16",
    prompts: Annotated[int, typer.Option(help="How many held-out prompts.", min=1)] = 4,
    tokens: Annotated[int, typer.Option(help="New tokens per prompt.", min=1)] = 48,
    modes: Annotated[str, typer.Option(help="Comma-separated: plain, hf-default, fixed-N, paper, speckv.")] = "",
    controller: Annotated[str, typer.Option(help="default, or the path of an .onnx artefact.")] = "default",
    json_out: Annotated[Path | None, typer.Option("--json", help="Also store the figures in this file.")] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Get a real pair of models, generate in every mode, and print a table."""
    from speckv.benchmarks.demo import DEMO_MODES, as_json, compare, table
    from speckv.benchmarks.generation import Modes
    from speckv.benchmarks.machine import machine, versions
    from speckv.benchmarks.progress import progress
    from speckv.benchmarks.prompts import load_prompts
    from speckv.controller.files import write_whole
    from speckv.integrations.models import load_pair, resolve

    _prepare_torch(threads)
    with progress() as report:
        sources = resolve(pair, report)
        console.print(f"Models: {sources.origin}")
        report("load models", 0, 1)
        target, draft, tokenizer = load_pair(pair, compression, draft_compression)
        report("load models", 1, 1)
        chosen = load_prompts("heldout")[:prompts]
        names = tuple(modes.split(",")) if modes else DEMO_MODES
        lines = compare(Modes(target, draft, controller), tokenizer, chosen, names, tokens, report)
    title = f"{compression} target, {draft_compression} draft, {len(chosen)} prompts × {tokens} tokens, greedy"
    console.print(table(lines, len(chosen), title))
    if json_out is not None:
        facts: dict[str, Any] = {"command": " ".join(["speckv", *sys.argv[1:]]), "pair": pair, "target": compression}
        facts |= {"draft": draft_compression, "tokens": tokens, "versions": versions(), "machine": machine()}
        write_whole(json_out, json.dumps(as_json(lines, len(chosen), **facts), indent=1) + "\n")
    if compression != "fp32":
        console.print(
            "Identical output is exact in fp32. In lower precision a near-tie may fall the other way when several "
            "tokens are verified together, whoever does the speculating.",
            style="dim",
        )


@app.command()
def profile(
    out: Annotated[Path, typer.Argument(help="The Parquet file to write; run again to resume.")],
    pair: PairOption = "default",
    compressions: Annotated[str, typer.Option(help="Of the target, comma-separated.")] = "bf16,int8,nf4",
    draft_compression: Annotated[str, typer.Option(help="Of the draft.")] = "bf16",
    gammas: Annotated[str, typer.Option(help="γ to run with, rotated over the prompts.")] = "2,4,6,8",
    prompts: Annotated[str, typer.Option(help="train, heldout, or a JSONL file with id, task and prompt.")] = "train",
    per_task: Annotated[int, typer.Option(help="Prompts per task.", min=1)] = 24,
    tokens: Annotated[int, typer.Option(help="New tokens per prompt.", min=4)] = 80,
    batch: Annotated[int, typer.Option(help="Prompts per forward; the times are then those of the batch.", min=1)] = 1,
    threads: ThreadsOption = 0,
) -> None:
    """Run speculation on a pair and write one record per round, to train a controller from."""
    from speckv.benchmarks.profile import profile as run_profile
    from speckv.benchmarks.progress import progress
    from speckv.benchmarks.prompts import load_prompts

    _prepare_torch(threads)
    with progress() as report:
        count = run_profile(
            out,
            load_prompts(prompts),
            pair,
            compressions.split(","),
            draft_compression,
            _integers(gammas, "gammas"),
            tokens,
            per_task,
            batch,
            report,
        )
    _say(f"{out}: {count} records; next: speckv train {out} --out controller.onnx")


@app.command()
def trace(
    out: Annotated[Path, typer.Argument(help="The Parquet file to write; run again to resume.")],
    pair: PairOption = "default",
    compression: Annotated[str, typer.Option(help="Of the target: bf16, fp32, fp16, int8 or nf4.")] = "bf16",
    draft_compression: Annotated[str, typer.Option(help="Of the draft.")] = "bf16",
    prompts: Annotated[str, typer.Option(help="heldout, train, or a JSONL file with id, task and prompt.")] = "heldout",
    tokens: Annotated[int, typer.Option(help="New tokens per prompt.", min=4)] = 96,
    depth: Annotated[int, typer.Option(help="Tokens the draft runs ahead from every position.", min=1)] = 20,
    batch: Annotated[int, typer.Option(help="Prompts the target decodes at once.", min=1)] = 16,
    threads: ThreadsOption = 0,
) -> None:
    """Record what the draft would propose from every position of the target's greedy text, to replay policies on."""
    from speckv.benchmarks.progress import progress
    from speckv.benchmarks.prompts import load_prompts
    from speckv.benchmarks.trace_making import make_traces

    _prepare_torch(threads)
    with progress() as report:
        count = make_traces(
            out, load_prompts(prompts), pair, compression, draft_compression, tokens, depth, batch, report
        )
    _say(f"{out}: {count} positions; next: python -m speckv.benchmarks.replay")


@app.command()
def calibrate(
    pair: PairOption = "default",
    compression: Annotated[str, typer.Option(help="Of the target: bf16, fp32, fp16, int8 or nf4.")] = "bf16",
    draft_compression: Annotated[str, typer.Option(help="Of the draft.")] = "bf16",
    repeats: Annotated[int, typer.Option(help="Timings of every forward, of which the median counts.", min=1)] = 5,
    out: Annotated[Path | None, typer.Option(help="Also write the costs to this JSON file.")] = None,
    threads: ThreadsOption = 0,
) -> None:
    """Time the pair's forwards on this machine; attach() finds the result from then on."""
    from speckv.benchmarks.progress import progress
    from speckv.controller.calibration import write_costs
    from speckv.integrations.models import load_pair
    from speckv.integrations.transformers.calibrate import about, remember
    from speckv.integrations.transformers.calibrate import calibrate as measure

    _prepare_torch(threads)
    with progress() as report:
        target, draft, _ = load_pair(pair, compression, draft_compression, progress=report)
        costs = measure(target, draft, repeats, report)
    shown = Table(title="Milliseconds per forward")
    for heading in ("rows", "target", "draft"):
        shown.add_column(heading, justify="right")
    for rows, ms in costs.verify.items():
        shown.add_row(str(rows), f"{ms:.1f}", f"{costs.draft[rows]:.1f}" if rows in costs.draft else "")
    shown.add_row("per 1,000 tokens of context", f"+{costs.verify_context:.1f}", f"+{costs.draft_context:.1f}")
    console.print(shown)
    _say(f"{remember(target, draft, costs)}: attach() uses these costs for this pair from now on")
    if out is not None:
        write_costs(costs, about(target, draft), out)


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
        Path | None, typer.Option(help="Traces of `speckv trace` that the survival head learns from too.")
    ] = None,
) -> None:
    """Train a controller on step records and export it to one ONNX file."""
    from speckv.benchmarks.build import build

    _must_be_onnx(out)
    artefact = build(records, out, seed, estimator, entropy_unit, traces)
    training = artefact.metadata.training
    console.print_json(data=training["metrics"])
    if early := [name for name, ended in training["converged"].items() if not ended]:
        _say(
            f"The {' and '.join(early)} training ended at its limit of iterations, not by itself; judge by the metrics."
        )
    _say(f"{out}: {len(artefact.content)} bytes, sha256 {artefact.sha256}")


@app.command()
def inspect(source: SourceArgument) -> None:
    """Check a controller and print what it says about itself."""
    import msgspec

    artefact = _open(source)
    _say(f"{artefact.source}\nsha256 {artefact.sha256}")
    _say(msgspec.json.format(msgspec.json.encode(artefact.metadata)).decode())


@app.command()
def export(
    source: SourceArgument, out: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)]
) -> None:
    """Write a folder to share: artefact, config.json, model card, and weights in the paper's form if they fit it."""
    from speckv.export.exchange import save_folder

    for path in save_folder(_open(source), out):
        _say(f"{path}: {path.stat().st_size} bytes")


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
    _say(f"{out}: {len(artefact.content)} bytes, sha256 {artefact.sha256}")


@app.command()
def doctor() -> None:
    """Print versions, devices and providers, and what is supported here; exit code 1 when something does not fit."""
    from speckv.benchmarks.doctor import examine

    findings = examine()
    drawn = Table("check", "found", "", show_header=False)
    for finding in findings:
        mark = {True: "[green]ok", False: "[red]not ok", None: "[dim]–"}[finding.fits]
        drawn.add_row(finding.what, finding.found, mark)
    console.print(drawn)
    if any(finding.fits is False for finding in findings):
        raise typer.Exit(1)


def _open(source: Path) -> Artefact:
    from speckv.export.exchange import open_controller
    from speckv.integrations.runtime import DEFAULT_ARTEFACT

    return open_controller(DEFAULT_ARTEFACT if str(source) == "default" else source)


def _must_be_onnx(out: Path) -> None:
    if out.suffix != ".onnx":
        raise SpecKVError(f"--out {out}: must end in .onnx, by which an artefact is known")


def _say(text: str) -> None:
    """Print ``text``, some of which may be a stranger's, as it is: nothing in it is markup or steers the terminal."""
    plain = "".join(character if character.isprintable() or character == "\n" else "?" for character in text)
    console.print(plain, markup=False, highlight=False, soft_wrap=True)


def _integers(text: str, option: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        raise SpecKVError(f"--{option} {text}: give whole numbers with commas between, such as 2,4,6,8") from None
    if not all(1 <= value <= 20 for value in values):
        raise SpecKVError(f"--{option} {text}: each must be within 1 … 20")
    return values


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2, an interruption exit code 130."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="speckv", standalone_mode=False)
    except (SpecKVError, OSError) as error:
        _fail(str(error))
    except USAGE_ERRORS as error:
        _fail(_usage(error))
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed; pip install 'speckv[transformers,cpu,bench]'")
    else:
        raise SystemExit(code)


def _usage(error: Any) -> str:
    command = error.ctx.command_path if error.ctx else "speckv"
    return f"{error.format_message().rstrip('.')}; see `{command} --help`"


def _fail(text: str) -> NoReturn:
    print(f"speckv: {' '.join(text.split())}", file=sys.stderr)
    raise SystemExit(2) from None


if __name__ == "__main__":
    main()

"""`python -m speckv.benchmarks.end_to_end`: `speckv bench` as the project judges itself, on the Qwen pair."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from speckv.benchmarks.bench.bound import DATA, TRACES, bounds
from speckv.benchmarks.bench.plan import CHAIN, OURS, POLICIES, STEP, STOCK, Plan, balanced
from speckv.benchmarks.bench.rows import summary
from speckv.benchmarks.bench.run import FRAMEWORKS, store
from speckv.benchmarks.bench.run import run as run_bench
from speckv.benchmarks.cli.app import check_pair
from speckv.benchmarks.common.command import JsonFile, make_app
from speckv.benchmarks.common.command import run as run_command
from speckv.benchmarks.common.progress import progress
from speckv.benchmarks.common.tables import Table
from speckv.benchmarks.prompts import load_prompts
from speckv.controller.errors import SpecKVError

REGIMES = {"transformers": ("bf16", "int8", "nf4", "nf4-draft4"), "sglang": ("bf16", "int8", "nf4")}
CONCURRENCIES = {"transformers": (1,), "sglang": (1, 2, 4, 8)}
REPEATS = {"transformers": 1, "sglang": 2}
PROMPTS = {"transformers": 12, "sglang": 16}
TOKENS = {"transformers": 64, "sglang": 48}

app = make_app()


@app.command()
def end_to_end(
    framework: Annotated[str, typer.Option(help="transformers or sglang.")] = "transformers",
    regime: Annotated[list[str] | None, typer.Option(help="bf16, int8, nf4, nf4-draft4; all when left out.")] = None,
    pair: Annotated[str, typer.Option(help="As for speckv demo.")] = "qwen2.5-coder",
    prompts: Annotated[int | None, typer.Option(help="Held-out, tasks in turn; 12, in SGLang 16.", min=1)] = None,
    tokens: Annotated[int | None, typer.Option(help="New tokens per prompt; 64, in SGLang 48.", min=1)] = None,
    concurrency: Annotated[list[int] | None, typer.Option(help="Requests at a time, SGLang only; 1 2 4 8.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Prompts in a call, transformers only; 1.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    repeats: Annotated[int | None, typer.Option(help="1, in SGLang 2: the second time in reverse.", min=1)] = None,
    fresh: Annotated[bool, typer.Option(help="SGLang only: a server just started for every figure.")] = False,
    together: Annotated[
        bool, typer.Option(help="SGLang only: all servers at once, one of them running, in turns; takes memory.")
    ] = False,
    draft_kind: Annotated[str, typer.Option(help="SGLang only: model, or a head, eagle3 or mtp.")] = "model",
    policy: Annotated[list[str] | None, typer.Option(help="plain and others; all when left out.")] = None,
    json_file: JsonFile = None,
    threads: Annotated[int, typer.Option(help="Threads for the models; 0 takes all cores.")] = 0,
) -> None:
    """Time plain decoding, fixed γ, transformers' default, the paper's policy and ours, side by side.

    Every finished part is kept in a journal beside the JSON file, so a run that was stopped goes on where it was, and
    more prompts or regimes are added to it.
    """
    if framework not in REGIMES:
        raise SpecKVError(f"--framework {framework}: known are {', '.join(REGIMES)}")
    known = (
        [*POLICIES, CHAIN]
        if framework == "transformers"
        else [p for p in POLICIES if p not in (STOCK, "paper")] + [STEP]
    )
    plan = Plan(
        balanced(load_prompts("heldout"), prompts or PROMPTS[framework]),
        pair,
        (framework,),
        tuple(regime or REGIMES[framework]),
        tuple(policy or known),
        tuple(concurrency or CONCURRENCIES[framework]),
        tuple(batch or (1,)),
        tokens or TOKENS[framework],
        temperature,
        repeats=repeats or REPEATS[framework],
        threads=threads,
        fresh=fresh,
        together=together,
        draft_kind=draft_kind,
    )
    plan.check(FRAMEWORKS)
    check_pair(pair)
    command = " ".join(["python -m speckv.benchmarks.end_to_end", *sys.argv[1:]])
    with progress() as report:
        result = run_bench(plan, json_file, command, report)
    if pair == "qwen2.5-coder" and not temperature:  # of which the traces are, by greedy decoding
        result["bound"] = bounds(result, {name: DATA / f"{file}.parquet" for name, file in TRACES.items()}, plan.tokens)
    summary(result["rows"]).show()
    if result["bound"]:
        prediction(result["bound"]).show()
    for mean in result["means"]:
        said = ", ".join(
            f"{value:.3f} {key.replace('_', ' ')}" for key, value in mean.items() if isinstance(value, float)
        )
        print(f"{OURS} in {mean['framework']}, geometric mean: {said}")
    if json_file is not None:
        store(result, json_file)


def prediction(bound: list[dict[str, Any]]) -> Table:
    """How far replay's prediction was from the wall clock, in tokens per second against plain decoding."""
    header = ("target", "policy", "predicted", "measured", "off")
    made = Table("Against plain: predicted by replay, measured, and by how much it was off", header)
    for row in bound:
        for policy, ratio in row["predicted_vs_plain"].items():
            measured = row["measured_vs_plain"][policy]
            cells = [f"{ratio:.2f}", f"{measured:.2f}", f"{100 * (ratio / measured - 1):+.0f} %"]
            made.rows.append([str(row["regime"]), policy, *cells])
    return made


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()

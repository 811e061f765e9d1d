"""The command that measures: `speckv bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from speckv.benchmarks.cli_app import ControllerOption, PairOption, ThreadsOption, app, say
from speckv.controller.extras import require

QUICK: dict[str, Any] = {
    "regimes": ("bf16", "nf4"),
    "policies": ("plain", "fixed-4", "hf-default", "speckv"),
    "concurrencies": (1, 4),
    "tokens": 24,
}
QUICK_PROMPTS = 4


@app.command()
def bench(
    out: Annotated[Path, typer.Argument(help="The JSON file to write; run again to resume.")],
    quick: Annotated[bool, typer.Option("--quick", help="A small one: some minutes on two cores.")] = False,
    pair: PairOption = "default",
    framework: Annotated[list[str] | None, typer.Option(help="transformers, sglang; those installed.")] = None,
    compression: Annotated[list[str] | None, typer.Option(help="bf16, fp16, fp32, int8, nf4, nf4-draft4.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="plain, fixed-N, hf-default, paper, speckv; all.")] = None,
    prompts: Annotated[str, typer.Option(help="heldout, train, or a JSONL file, spec-bench's too.")] = "heldout",
    count: Annotated[int | None, typer.Option(help="Tasks in turn; 0 takes all; 12 unless said.", min=0)] = None,
    concurrency: Annotated[list[int] | None, typer.Option(help="At a time, in SGLang; 1 and 4 unless said.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Prompts in a call, in transformers; 1 unless said.")] = None,
    tokens: Annotated[int | None, typer.Option(help="New tokens per prompt; 64 unless said.", min=1)] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    repeats: Annotated[int, typer.Option(help="How often everything is measured.", min=1)] = 1,
    controller: ControllerOption = "default",
    bound: Annotated[bool, typer.Option(help="Also trace the prompts, for replay and the clairvoyant bound.")] = True,
    sglang_python: Annotated[str, typer.Option(help="The Python that has SGLang, if it is another one.")] = "",
    threads: ThreadsOption = 0,
) -> None:
    """Time every policy on the same prompts in transformers and SGLang, and store everything in one JSON file.

    What is finished is kept in a journal beside OUT: interrupt it anywhere, and the same command goes on.
    """
    require("torch", "transformers", "onnxruntime", "onnx", "sklearn", "pyarrow")
    from speckv.benchmarks.bench.bound import bounds, trace_prompts
    from speckv.benchmarks.bench.in_sglang import own_python
    from speckv.benchmarks.bench.plan import Plan, balanced
    from speckv.benchmarks.bench.rows import summary
    from speckv.benchmarks.bench.run import FRAMEWORKS, store
    from speckv.benchmarks.bench.run import run as run_bench
    from speckv.benchmarks.progress import progress
    from speckv.benchmarks.prompts import load_prompts
    from speckv.controller.errors import SpecKVError
    from speckv.integrations.models.loading import default_pair

    settings: dict[str, Any] = {"concurrencies": (1, 4), **(QUICK if quick else {})}
    names, left_out = framework, ""
    if not names:
        names = list(FRAMEWORKS)
        try:
            sglang_python = sglang_python or own_python()
        except SpecKVError as error:
            names, left_out = [name for name in names if name != "sglang"], str(error)
    lists = {"frameworks": names, "regimes": compression, "policies": policy, "concurrencies": concurrency}
    lists |= {"batches": batch}
    settings |= {name: tuple(given) for name, given in lists.items() if given}
    settings |= {"tokens": tokens} if tokens else {}
    settings |= {
        "pair": default_pair() if pair == "default" else pair,
        "temperature": temperature,
        "repeats": repeats,
        "threads": threads,
    }
    settings |= {"controller": controller, "sglang_python": sglang_python}
    default_count = QUICK_PROMPTS if quick else 12
    plan = Plan(balanced(load_prompts(prompts), default_count if count is None else count), **settings)
    with progress() as report:
        result = run_bench(plan, out, " ".join(["speckv", *sys.argv[1:]]), report)
        if left_out:
            result["skipped"].append(["sglang", "all", left_out])
        if bound and not temperature and "transformers" in plan.frameworks:
            traces = trace_prompts(plan, out, report)
            result["bound"] = bounds(result, traces, plan.tokens, controller)
        store(result, out)
    summary(result["rows"]).show()
    for one in result["agreement"]:
        say(
            f"{' and '.join(one['frameworks'])}, {one['regime']}: {one['identical']} of {one['prompts']} plain outputs "
            f"are the same, {one['tokens_alike']} of {one['tokens']} tokens before the first difference"
        )
    for name, of, reason in result["skipped"]:
        say(f"left out: {name}, {of}: {reason}")
    say(f"{out}: next: speckv report {out} -o report; speckv recommend {out}")

"""The command that measures: `speckv bench`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speckv.benchmarks.cli.app import ControllerOption, PairOption, ThreadsOption, app, check_pair, say
from speckv.benchmarks.prompts import Prompt, load_prompts
from speckv.controller.extras import require

if TYPE_CHECKING:
    from speckv.benchmarks.report.reading import Result

QUICK: dict[str, Any] = {
    "regimes": ("bf16", "nf4"),
    "policies": ("plain", "fixed-4", "hf-default", "speckv"),
    "concurrencies": (1, 4),
    "tokens": 24,
}
QUICK_PROMPTS = 4


@app.command()
def bench(
    out: Annotated[Path, typer.Argument(help="The JSON file to write; run again to resume.", dir_okay=False)],
    quick: Annotated[bool, typer.Option("--quick", help="A small one: some minutes on two cores.")] = False,
    pair: PairOption = "default",
    framework: Annotated[list[str] | None, typer.Option(help="transformers, sglang; those installed.")] = None,
    compression: Annotated[list[str] | None, typer.Option(help="bf16, fp16, fp32, int8, nf4, nf4-draft4.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="plain, fixed-N, hf-default, paper, speckv; all.")] = None,
    prompts: Annotated[str, typer.Option(help="heldout, train, or a JSONL file, spec-bench's too.")] = "heldout",
    count: Annotated[int | None, typer.Option(help="Tasks in turn; 0 takes all; 12 unless said.", min=0)] = None,
    concurrency: Annotated[list[int] | None, typer.Option(help="At a time, in servers; 1 and 4 unless said.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Prompts in a call, in transformers; 1 unless said.")] = None,
    tokens: Annotated[int | None, typer.Option(help="New tokens per prompt; 64 unless said.", min=1)] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    repeats: Annotated[int, typer.Option(help="How often everything is measured.", min=1)] = 1,
    controller: ControllerOption = "default",
    bound: Annotated[bool, typer.Option(help="Also trace the prompts, for replay and the clairvoyant bound.")] = True,
    sglang_python: Annotated[str, typer.Option(help="The Python that has SGLang, if it is another one.")] = "",
    draft_kind: Annotated[
        str, typer.Option(help="model; in SGLang also eagle3 and mtp: heads, as --pair's second.")
    ] = "model",
    threads: ThreadsOption = 0,
    url: Annotated[
        list[str] | None,
        typer.Option(help="A running server with the OpenAI API, URL or NAME=URL; the first is the others' measure."),
    ] = None,
    model: Annotated[str, typer.Option(help="With --url: which model, where a server has several.")] = "",
    api_key: Annotated[str, typer.Option(envvar="OPENAI_API_KEY", help="With --url: the servers' key.")] = "",
) -> None:
    """Time every policy on the same prompts in transformers and SGLang, and store everything in one JSON file.

    With --url, time servers that run already instead, wherever they are; nothing is started, and no model is loaded.

    What is finished is kept in a journal beside OUT: interrupt it anywhere, and the same command goes on.
    """
    from speckv.benchmarks.bench.plan import SERVERS, Plan
    from speckv.controller.errors import SpecKVError

    settings: dict[str, Any] = {"concurrencies": (1, 4), **(QUICK if quick else {})}
    settings |= {"tokens": tokens} if tokens else {}
    settings |= {"concurrencies": tuple(concurrency)} if concurrency else {}
    settings |= {"temperature": temperature, "repeats": repeats}
    usual = QUICK_PROMPTS if quick else 12
    if url:
        ours: dict[str, Any] = {"--pair": pair != "default", "--framework": framework, "--compression": compression}
        ours |= {"--policy": policy, "--batch": batch, "--controller": controller != "default"}
        ours |= {"--sglang-python": sglang_python, "--threads": threads, "--draft-kind": draft_kind != "model"}
        if given := [name for name, value in ours.items() if value]:
            raise SpecKVError(f"{given[0]}: the servers at --url are measured as they run; leave it out")
        _at_url(out, url, _chosen(prompts, count, usual), settings, model, api_key)
        return
    if model:
        raise SpecKVError("--model: is of servers at --url; models that are started here are named with --pair")
    require("torch", "transformers", "onnxruntime", "onnx", "sklearn", "pyarrow")
    from speckv.benchmarks.bench.run import FRAMEWORKS, store
    from speckv.benchmarks.bench.run import run as run_bench
    from speckv.benchmarks.common.progress import progress

    every = [name for name in FRAMEWORKS if name != SERVERS]
    lists = {"frameworks": framework or every, "regimes": compression, "policies": policy, "batches": batch}
    settings |= {name: tuple(values) for name, values in lists.items() if values}
    settings |= {"pair": pair, "threads": threads}
    settings |= {"controller": controller, "sglang_python": sglang_python, "draft_kind": draft_kind}
    plan = Plan(_chosen(prompts, count, usual), **settings)
    plan.check(FRAMEWORKS)  # before anything is imported or loaded, which takes its time
    from speckv.benchmarks.bench.bound import bounds, trace_prompts
    from speckv.benchmarks.bench.in_sglang import own_python
    from speckv.integrations.models.loading import default_pair

    left_out = ""
    if not framework:
        try:
            plan = replace(plan, sglang_python=sglang_python or own_python())
        except SpecKVError as error:
            plan = replace(plan, frameworks=tuple(name for name in every if name != "sglang"))
            left_out = str(error)
    if pair == "default":
        plan = replace(plan, pair=default_pair())
    check_pair(pair)
    with progress() as report:
        result = run_bench(plan, out, " ".join(["speckv", *sys.argv[1:]]), report)
        if left_out:
            result["skipped"].append(["sglang", "all", left_out])
        if bound and not temperature and "transformers" in plan.frameworks:
            traces = trace_prompts(plan, out, report)
            result["bound"] = bounds(result, traces, plan.tokens, controller)
        store(result, out)
    _show(out)
    for one in result["agreement"]:
        say(
            f"{' and '.join(one['frameworks'])}, {one['regime']}: {one['identical']} of {one['prompts']} plain outputs "
            f"are the same, {one['tokens_alike']} of {one['tokens']} tokens before the first difference"
        )
    for name, of, reason in result["skipped"]:
        say(f"left out: {name}, {of}: {reason}")
    say(f"{out}: next: speckv report {out} -o report; speckv recommend {out}")


def _chosen(name: str, count: int | None, usual: int) -> tuple[Prompt, ...]:
    """``count`` prompts of the set or file ``name``; the ``usual`` count, or all, where none is said."""
    from speckv.benchmarks.bench.plan import balanced

    prompts = load_prompts(name)
    return balanced(prompts, min(usual, len(prompts)) if count is None else count)


def _at_url(
    out: Path, urls: list[str], prompts: tuple[Prompt, ...], settings: dict[str, Any], model: str, api_key: str
) -> None:
    """Measure the servers at ``urls`` on ``prompts``."""
    from speckv.benchmarks.bench.at_url import served
    from speckv.benchmarks.bench.run import run
    from speckv.benchmarks.common.progress import progress
    from speckv.benchmarks.report.servers import named_as_needed, notes

    plan = served(urls, prompts, api_key, model, **settings)
    command = " ".join(["speckv", *sys.argv[1:]])
    with progress() as report:
        run(plan, out, command.replace(api_key, "…") if api_key else command, report)
    result = _show(out)
    for text in notes(result):
        say(text)
    more = f"; speckv recommend {out}" if named_as_needed(result) else ""
    say(f"{out}: next: speckv report {out} -o report{more}")


def _show(out: Path) -> Result:
    """The result in ``out``, with its tables printed."""
    from speckv.benchmarks.report.reading import read
    from speckv.benchmarks.report.summary import tables

    result = read(out)
    for number, table in enumerate(tables(result)):
        if number:
            say("")
        table.show()
    return result

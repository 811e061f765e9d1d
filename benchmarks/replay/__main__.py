"""`python -m speckv.benchmarks.replay`: every policy in every cost regime, exactly, on recorded traces."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from speckv.benchmarks.command import run as run_command
from speckv.benchmarks.machine import machine, versions
from speckv.benchmarks.peers import FIXED, PEERS, make_peer
from speckv.benchmarks.progress import progress
from speckv.benchmarks.ratios import Timed, rows
from speckv.benchmarks.replay.engine import Played, clairvoyant, play
from speckv.benchmarks.replay.figures import plot, table
from speckv.benchmarks.replay.regimes import REGIMES, TRACES, Regime, load_regimes
from speckv.benchmarks.traces import Trace, read_traces
from speckv.controller.errors import SpecKVError
from speckv.controller.features import compression_level
from speckv.controller.files import write_whole
from speckv.controller.policies import make_policy
from speckv.integrations.runtime import Controller

OURS, BOUND = "speckv", "clairvoyant"
ORDER_SEED = 0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def replay_regime(
    regime: Regime, traces: list[Trace], tokens: int, controller: str, max_gamma: int | None = None
) -> dict[str, list[Played]]:
    """Every policy on the traces, in one shuffled order; what a policy learns it keeps from text to text."""
    order = list(traces)
    random.Random(ORDER_SEED).shuffle(order)
    level = compression_level(regime.compression)
    loaded = Controller.load(controller)
    policies = {name: make_peer(name, loaded, level) for name in PEERS}
    policies[OURS] = make_policy(loaded, "throughput", "token", level, regime.cost_model(), max_gamma=max_gamma)
    played = {name: play(policy, order, regime, tokens) for name, policy in policies.items()}
    return played | {BOUND: clairvoyant(order, regime, tokens)}


def judge(played: dict[str, list[Played]]) -> list[dict[str, Any]]:
    """The rows of ``ratios.rows``, with each policy's mean γ, tokens per verify and wasted tokens."""
    timed = {
        name: Timed(np.array([one.tokens for one in texts], float), np.array([one.ms for one in texts]))
        for name, texts in played.items()
    }
    tasks = [one.task for one in next(iter(played.values()))]
    found = rows(timed, tasks, tuple(FIXED))
    for row in found:
        texts = [one for one in played[row["policy"]] if row["task"] in ("all", one.task)]
        drafted, accepted = (sum(sum(getattr(one, kind)) for one in texts) for kind in ("drafted", "accepted"))
        rounds = sum(len(one.drafted) for one in texts)
        row |= {"mean_gamma": drafted / rounds, "tau": sum(one.tokens for one in texts) / rounds}
        row["wasted"] = drafted - accepted
    return found


@app.command()
def replay(
    json_file: Annotated[Path | None, typer.Option("--json", help="Store every row in this file.")] = None,
    regimes: Annotated[Path, typer.Option(help="The cost regimes.")] = REGIMES,
    only: Annotated[str, typer.Option(help="Comma-separated names of regimes; all when left out.")] = "",
    traces: Annotated[Path, typer.Option(help="The folder of the trace files.")] = TRACES,
    controller: Annotated[str, typer.Option(help="default, or the path of an .onnx artefact.")] = "default",
    max_gamma: Annotated[int | None, typer.Option(help="Our ceiling, 1 … 20; the default one when left out.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw the ratios to this PNG or SVG.")] = None,
) -> None:
    """Replay fixed γ, the peers, the paper's policy, ours and the clairvoyant bound, and compare them."""
    chosen = load_regimes(regimes)
    names = [name.strip() for name in only.split(",")] if only else list(chosen)
    if unknown := [name for name in names if name not in chosen]:
        raise SpecKVError(f"--only {unknown[0]}: {regimes} has {', '.join(chosen)}")
    if plot_file is not None and plot_file.suffix not in (".png", ".svg"):
        raise SpecKVError(f"--plot {plot_file}: name a .png or an .svg file")
    files = {name: traces / f"{chosen[name].trace}.parquet" for name in names}
    if missing := [str(file) for file in files.values() if not file.exists()]:
        raise SpecKVError(f"{missing[0]}: no such file; record it with `speckv trace`")
    found: list[dict[str, Any]] = []
    facts = {}
    with progress() as report:
        for number, name in enumerate(names):
            regime = chosen[name]
            recorded, about = read_traces(files[name])
            facts[regime.trace] = {**about, "prompts": len(recorded), "positions": sum(t.tokens for t in recorded)}
            played = replay_regime(regime, recorded, about["tokens"], controller, max_gamma)
            found += [{"regime": name, **row} for row in judge(played)]
            report("replay", number + 1, len(names))
    table(found, names).show()
    if json_file is not None:
        result: dict[str, Any] = {
            "command": " ".join(["python -m speckv.benchmarks.replay", *sys.argv[1:]]),
            "rows": found,
        }
        result |= {"traces": facts, "regimes": json.loads(regimes.read_text()), "versions": versions()}
        result |= {"machine": machine(), "controller": Controller.load(controller).artefact.sha256}
        write_whole(json_file, json.dumps(result, indent=1) + "\n")
    if plot_file is not None:
        plot(found, names, plot_file)


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()

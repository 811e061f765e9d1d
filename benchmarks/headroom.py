"""`python -m speckv.benchmarks.headroom`: how well one would have to predict acceptance to get nearer to the bound."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from speckv.benchmarks.command import run as run_command
from speckv.benchmarks.machine import machine, versions
from speckv.benchmarks.peers import FIXED, make_peer
from speckv.benchmarks.progress import progress
from speckv.benchmarks.ratios import LEAST_ROOM
from speckv.benchmarks.replay.engine import clairvoyant, play, rounds
from speckv.benchmarks.replay.regimes import REGIMES, TRACES, Regime, load_regimes
from speckv.benchmarks.tables import Table
from speckv.benchmarks.traces import Trace, read_traces
from speckv.controller.decision import Floats
from speckv.controller.features import compression_level
from speckv.controller.files import write_whole
from speckv.controller.policies.throughput import ThroughputPolicy
from speckv.integrations.runtime import Controller

RELIABILITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
ORDER_SEED = 0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Hinted:
    """The controller, told before each answer whether the token will survive, by a hint that is right so often.

    Given hint and prediction the probability is Bayes': the odds times r / (1 − r) or its inverse. With r = 0.5 it is
    the controller alone. No real policy could have this: it measures what a better signal would be worth.
    """

    def __init__(self, controller: Controller, reliability: float) -> None:
        self.controller = controller
        self.odds = reliability / (1 - reliability)
        self.reliability = reliability
        self.random = random.Random(ORDER_SEED)
        self.matches: Sequence[int] = ()
        self.place = 0
        self.losses: list[float] = []

    def survival(self, signals: Sequence[float], level: int, drafted: int) -> float:
        told = self.controller.survival(signals, level, drafted)
        truth = self.matches[self.place] > drafted
        says_so = truth == (self.random.random() < self.reliability)
        odds = told / max(1e-9, 1 - told) * (self.odds if says_so else 1 / self.odds)
        survival = odds / (1 + odds)
        self.losses.append(-math.log(max(1e-9, survival if truth else 1 - survival)))
        return survival

    def acceptance_rates(self, signals: Sequence[float], level: int, gammas: Sequence[int]) -> Floats:
        raise NotImplementedError("only decisions per token are hinted at")


def headroom(
    regime: Regime, traces: Sequence[Trace], tokens: int, reliabilities: Sequence[float] = RELIABILITIES
) -> list[dict[str, float]]:
    """Our policy in ``regime`` with hints of each reliability; nothing where no γ could gain LEAST_ROOM.

    Each has ``reliability``, ``log_loss`` of what the policy asked, ``tokens_per_s``, ``vs_best_fixed`` and
    ``oracle_share``, which is how far the policy goes from the best fixed γ to the clairvoyant bound.
    """
    order = list(traces)
    random.Random(ORDER_SEED).shuffle(order)
    controller, level = Controller.load(), compression_level(regime.compression)
    fixed = [play(make_peer(name, controller, level), order, regime, tokens) for name in FIXED]
    best = min(sum(one.ms for one in texts) for texts in fixed)
    room = best / sum(one.ms for one in clairvoyant(order, regime, tokens)) - 1
    if room < LEAST_ROOM:
        return []
    made = []
    for reliability in reliabilities:
        hinted = Hinted(controller, reliability)
        policy = ThroughputPolicy(hinted, level, regime.cost_model())
        ms = 0.0
        for trace in order:
            hinted.matches, hinted.place = trace.matches.tolist(), 0
            for this in rounds(policy, trace, tokens, regime):
                ms += this.draft_ms + this.verify_ms
                hinted.place += this.emitted
        row = {"reliability": reliability, "log_loss": sum(hinted.losses) / len(hinted.losses)}
        row |= {"tokens_per_s": 1e3 * sum(trace.tokens for trace in order) / ms, "vs_best_fixed": best / ms}
        made.append(row | {"oracle_share": (best / ms - 1) / room})
    return made


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row per reliability of the hints: mean log-loss and share, and the speed in each regime."""
    regimes = list(dict.fromkeys(row["regime"] for row in rows))
    header = ("hints that are right", "log-loss", "share of the bound", *regimes)
    made = Table("Our policy if acceptance could be predicted better; speed against the best fixed γ", header)
    for reliability in dict.fromkeys(row["reliability"] for row in rows):
        here = [row for row in rows if row["reliability"] == reliability]
        shares = [row["oracle_share"] for row in here]
        loss = sum(row["log_loss"] for row in here) / len(here)
        name = "none (what ships)" if reliability == 0.5 else f"{reliability:.0%}"
        cells = [name, f"{loss:.3f}", f"{sum(shares) / len(shares):.2f}"]
        made.rows.append([*cells, *(f"{row['vs_best_fixed']:.3f}" for row in here)])
    return made


@app.command()
def measure(
    json_file: Annotated[Path | None, typer.Option("--json", help="Store every row in this file.")] = None,
    traces: Annotated[Path, typer.Option(help="The folder of the trace files.")] = TRACES,
) -> None:
    """Replay our policy with ever better hints, in every regime that leaves room for speculation."""
    rows: list[dict[str, Any]] = []
    regimes = load_regimes(REGIMES)
    with progress() as report:
        for number, regime in enumerate(regimes.values()):
            recorded, about = read_traces(traces / f"{regime.trace}.parquet")
            rows += [{"regime": regime.name, **row} for row in headroom(regime, recorded, about["tokens"])]
            report("headroom", number + 1, len(regimes))
    table(rows).show()
    if json_file is not None:
        command = " ".join(["python -m speckv.benchmarks.headroom", *sys.argv[1:]])
        content = {"command": command, "rows": rows, "versions": versions(), "machine": machine()}
        write_whole(json_file, json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()

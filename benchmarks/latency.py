"""`python -m speckv.benchmarks.latency`: what a decision takes where loops ask for it, and the paper's way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
import typer
from numpy.typing import NDArray

from speckv.benchmarks.common.command import JsonFile, make_app, show_and_store
from speckv.benchmarks.common.command import run as run_command
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.paper.heads import by_sklearn
from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs
from speckv.controller.features import summarize
from speckv.controller.policies import make_policy
from speckv.controller.policy import BEST, Policy, Request, Round
from speckv.controller.training import ESTIMATORS, make_model
from speckv.integrations.runtime import Controller

BATCHES = (1, 8, 64)
DECISIONS = ("begin", "deepen", "choose")
COSTS = Costs({1: 10.0}, {1: 100.0, 8: 102.0, 64: 110.0, 256: 140.0, 4096: 1300.0})
"""Milliseconds by rows: a target for which drafting pays and some siblings do, but not all."""

LEVELS = 24
ROUNDS_KEPT = 64
"""Rounds whose signals are drawn beforehand."""
WARM_UP = 200
PAPERS_DRAFTED = 4

app = make_app()
Floats = NDArray[np.float32]
Times = dict[str, list[int]]
Answer = TypeVar("Answer")


def signals(size: int, seed: int = 0) -> Floats:
    """(ROUNDS_KEPT, LEVELS, size, 1 + BEST), as drafts give them: mostly sure, now and then not at all."""
    draws = np.random.default_rng(seed)
    best = np.sort(draws.dirichlet((6.0, 0.5, 0.3, 0.2, 0.2), (ROUNDS_KEPT, LEVELS, size)), axis=-1)[
        ..., : -BEST - 1 : -1
    ]
    entropies = -(best * np.log(np.maximum(best, 1e-9))).sum(axis=-1, keepdims=True)
    return np.concatenate((entropies, best), axis=-1).astype(np.float32)


def rounds(policy: Policy, size: int, times: Times) -> Iterator[Round]:
    """Rounds as a loop has them; adds the nanoseconds of every call to ``times``, by its name."""
    draws, shown = np.random.default_rng(1), signals(size)
    requests = [Request() for _ in range(size)]
    number = 0

    def timed(name: str, ask: Callable[[Round], Answer], this: Round) -> Answer:
        started = time.perf_counter_ns()
        answer = ask(this)
        times[name].append(time.perf_counter_ns() - started)
        return answer

    while True:
        levels = shown[number % ROUNDS_KEPT]
        number += 1
        this = Round(requests, 500)
        wanted = most = timed("begin", lambda this: policy.begin(this, LEVELS), this)
        this.resting = most == 0
        while len(this.levels) < wanted:
            this.levels.append(levels[len(this.levels)])
            wanted = min(most, timed("deepen", policy.deepen, this))
        this.gamma = wanted
        this.siblings = timed("choose", policy.choose, this) if wanted else None
        held = draws.random((wanted, size)) < levels[:wanted, :, 1]
        this.accepted = np.cumprod(held, axis=0).sum(axis=0).tolist()
        drawn = draws.integers(1, BEST + 1, size).tolist()
        this.ranks = [rank if taken < wanted else 0 for taken, rank in zip(this.accepted, drawn, strict=True)]
        this.emitted = sum(this.accepted) + size + sum(this.sibling_hits)
        this.draft_ms = COSTS.draft[1] * len(this.levels)
        rows = list(COSTS.verify)
        this.verify_ms = float(np.interp(size + this.verified, rows, list(COSTS.verify.values())))
        timed("observe", lambda this: policy.observe(this), this)
        this.remember()
        yield this


def decisions_of(controller: Controller | Timed, size: int, count: int) -> dict[str, Any]:
    """µs of at least ``count`` decisions for ``size`` requests, a decision being one call, and by the calls' names."""
    policy = make_policy(controller, "throughput", "token", 0, CostModel(COSTS))
    times: Times = {name: [] for name in (*DECISIONS, "observe")}
    played = rounds(policy, size, times)
    while len(times["deepen"]) < WARM_UP:
        next(played)
    for taken in times.values():
        taken.clear()
    drafted = verified = number = 0
    while sum(len(times[name]) for name in DECISIONS) < count:
        this = next(played)
        number, drafted, verified = number + 1, drafted + len(this.levels), verified + this.verified
    every = percentiles(np.concatenate([times[name] for name in DECISIONS]))
    shape = {"drafted": drafted / number, "verified": verified / number / size}
    return every | {name: percentiles(np.array(taken)) for name, taken in times.items() if taken} | shape


class Timed:
    """A controller whose answers are timed: what of a decision is onnxruntime's, the rest being the policy's."""

    def __init__(self, controller: Controller) -> None:
        self.controller, self.taken = controller, list[int]()

    def acceptance_rates(self, signals: Sequence[float], level: int, gammas: Sequence[int]) -> Floats:
        raise NotImplementedError("the policy that is timed does not ask for rates")

    def survival(self, prefixes: Floats, further: tuple[int, ...]) -> Floats:
        started = time.perf_counter_ns()
        answers = self.controller.survival(prefixes, further)
        self.taken.append(time.perf_counter_ns() - started)
        return answers


def percentiles(taken: NDArray[Any]) -> dict[str, float]:
    """Microseconds, p50 and p99, of nanoseconds."""
    return {f"p{share}_us": float(np.percentile(taken, share)) / 1e3 for share in (50, 99)}


def papers(count: int, level: int = 0) -> dict[str, float]:
    """One request's decision: four scikit-learn ``predict`` calls, of a model fitted to nothing: that takes as long."""
    model = make_model(*ESTIMATORS["mlp16"], 0)[-1]
    generator = np.random.default_rng(0)
    model.set_params(max_iter=2, early_stopping=False)
    model.fit(generator.random((100, 6)), generator.random(100))
    decide = by_sklearn(model)
    asked = [(level[:, 0].tolist(), level[:, 1].tolist()) for level in signals(1)[:, :PAPERS_DRAFTED, 0]]
    taken = []
    for number in range(WARM_UP + count):
        started = time.perf_counter_ns()
        decide(np.array([[*summarize(*asked[number % ROUNDS_KEPT]), level]], np.float32))
        taken.append(time.perf_counter_ns() - started)
    return percentiles(np.array(taken[WARM_UP:]))


@app.command()
def latency(
    json_file: JsonFile = None,
    controller: Annotated[str, typer.Option(help="default, or the path of an .onnx artefact.")] = "default",
    decisions: Annotated[int, typer.Option(help="Timed, for each batch size.", min=100)] = 20_000,
) -> None:
    """Time the calls that a loop makes for batches of requests, and beside them the paper's four scikit-learn calls."""
    loaded = Controller.load(controller)
    batches = {str(size): decisions_of(loaded, size, decisions) for size in BATCHES}
    for size in BATCHES:  # another time, since the clock takes its time as well
        decisions_of(timed := Timed(loaded), size, decisions)
        batches[str(size)]["onnxruntime"] = percentiles(np.array(timed.taken[WARM_UP:]))
    one = batches["1"]
    result: dict[str, Any] = {
        "p50_us": one["p50_us"],
        "p99_us": one["p99_us"],
        "batch64_p99_us": batches["64"]["p99_us"],
    }
    result |= {"batches": batches, "sklearn_four_predicts": papers(min(decisions, 2000))}
    result |= {"command": "python -m speckv.benchmarks.latency", "decisions": decisions}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    show_and_store(result | {"versions": versions(), "machine": machine() | {"load_1min": load}}, json_file)


def main() -> None:
    """Run the command."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    warnings.simplefilter("ignore", ConvergenceWarning)  # of a model that is only timed
    run_command(app)


if __name__ == "__main__":
    main()

"""`python -m speckv.benchmarks.latency`: what a decision costs with its features, and what the paper's way costs."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from speckv.benchmarks.command import run as run_command
from speckv.benchmarks.command import show_and_store
from speckv.benchmarks.heads import by_sklearn
from speckv.benchmarks.machine import machine, versions
from speckv.controller.features import summarize
from speckv.controller.policies.tokens import PAPER_GAMMAS
from speckv.controller.training import ESTIMATORS, make_model
from speckv.integrations.runtime import Controller

BATCHES = (1, 8, 64)
DRAFTED = 4
WARM_UP = 200

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Signals = Sequence[tuple[Sequence[float], Sequence[float]]]


def requests(count: int, seed: int) -> Signals:
    """Entropies and confidences of ``count`` requests' last rounds, of DRAFTED tokens each."""
    draws = random.Random(seed)
    confidences = [[draws.random() for _ in range(DRAFTED)] for _ in range(count)]
    return [([3 * (1 - one) for one in round_], round_) for round_ in confidences]


def percentiles(decide: Callable[[Signals], Any], size: int, decisions: int) -> dict[str, float]:
    """Microseconds of a decision for ``size`` requests, p50 and p99, every one on other signals."""
    asked = [requests(size, seed) for seed in range(64)]
    taken = []
    for number in range(WARM_UP + decisions):
        signals = asked[number % len(asked)]
        started = time.perf_counter_ns()
        decide(signals)
        taken.append(time.perf_counter_ns() - started)
    return {f"p{share}_us": float(np.percentile(taken[WARM_UP:], share)) / 1e3 for share in (50, 99)}


def ours(controller: Controller, level: int = 0) -> Callable[[Signals], Any]:
    """Features and ``Controller.decide``, as a loop calls them."""

    def decide(signals: Signals) -> Any:
        rows = np.array([(*summarize(entropies, confidences), level) for entropies, confidences in signals], np.float32)
        return controller.decide(rows)

    return decide


def papers(level: int = 0) -> Callable[[Signals], Any]:
    """One request, four scikit-learn ``predict`` calls, one for each γ. Fitted to nothing: that takes as long."""
    model = make_model(*ESTIMATORS["mlp16"], 0)[-1]
    generator = np.random.default_rng(0)
    model.set_params(max_iter=2, early_stopping=False)
    model.fit(generator.random((100, 6)), generator.random(100))
    decide = by_sklearn(model)
    return lambda signals: decide(np.array([[*summarize(*signals[0]), level]], np.float32))


@app.command()
def latency(
    json_file: Annotated[Path | None, typer.Option("--json", help="Store every figure in this file.")] = None,
    controller: Annotated[str, typer.Option(help="default, or the path of an .onnx artefact.")] = "default",
    decisions: Annotated[int, typer.Option(help="Timed, of each kind.", min=100)] = 20_000,
) -> None:
    """Time a decision for batches of requests, and beside it the paper's four scikit-learn calls."""
    decide = ours(Controller.load(controller))
    batches = {str(size): percentiles(decide, size, decisions) for size in BATCHES}
    result: dict[str, Any] = {**batches["1"], "batches": batches}
    result["sklearn_four_predicts"] = percentiles(papers(), 1, min(decisions, 2000))
    result |= {
        "command": "python -m speckv.benchmarks.latency",
        "decisions": decisions,
        "candidates": len(PAPER_GAMMAS),
    }
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

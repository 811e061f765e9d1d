"""`python -m speckv.benchmarks.paper.heads`: a decision by each of the paper's predictors, as ONNX and as it was."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from speckv.benchmarks.common.command import JsonFile, make_app
from speckv.benchmarks.common.command import run as run_command
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.common.tables import Table
from speckv.benchmarks.paper.decision import best_for_tokens
from speckv.controller.files import write_whole
from speckv.controller.policies.tokens import PAPER_GAMMAS
from speckv.controller.records import read_records
from speckv.controller.training import ESTIMATORS, acceptance_data, fit, make_model
from speckv.controller.walks import Array
from speckv.export.artefact import Metadata, make_artefact
from speckv.export.convert import to_onnx
from speckv.export.parity import check_parity
from speckv.integrations.runtime import Controller

PUBLISHED_MS = {"mlp16": 0.336, "rf100": 21.359}
"""The paper's own decision times, on its machine."""

BLOCK = 10
"""Decisions of one contender before the next has its turn: the first of them finds the caches cold."""

app = make_app()
Decide = Callable[[Array], int]


def run(data: Path, decisions: int = 1000, seed: int = 42, entropy_unit: str = "bits") -> dict[str, Any]:
    """Train each predictor on ``data``, export it, and time decisions for one request among the paper's four γ.

    A decision is the whole answer, the chosen γ: by ``Controller``, one call through onnxruntime, and as the paper's
    code makes it, by four scikit-learn ``predict`` calls. All take turns on the same rows. What is stored, JSON-able;
    times in µs.
    """
    features, rates = acceptance_data(read_records(data, entropy_unit))
    contenders: dict[str, tuple[Decide, Decide]] = {}
    heads: dict[str, dict[str, Any]] = {}
    for name, recipe in ESTIMATORS.items():
        model = make_model(*recipe, seed)
        if hasattr(model, "steps"):
            model = model[-1]  # the paper's networks are fitted to the features as they are
        fit(model, features, rates)
        graph = to_onnx({"acceptance_rate": model})
        metadata = Metadata(heads=["acceptance_rate"], gammas=list(PAPER_GAMMAS), training={}, versions={})
        artefact = make_artefact(graph, metadata, name)
        contenders[name] = (_by_onnx(Controller(artefact)), by_sklearn(model))
        difference = check_parity({"acceptance_rate": model}, graph)
        heads[name] = {"bytes": len(artefact.content), "largest_difference": difference}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    times, agreement = _measure(contenders, features[:, :5], decisions, seed)
    for name, head in heads.items():
        head["onnx_us"], head["sklearn_us"] = (_percentiles(values) for values in times[name])
        head["speedup_p50"] = round(head["sklearn_us"]["p50"] / head["onnx_us"]["p50"], 1)
        head["same_gamma"] = agreement[name]
        head["published_us"] = PUBLISHED_MS[name] * 1000 if name in PUBLISHED_MS else None
    return {
        "command": f"python -m speckv.benchmarks.paper.heads --data {data.name} --entropy-unit {entropy_unit} "
        f"--decisions {decisions} --seed {seed}",
        "data": {data.name: hashlib.sha256(data.read_bytes()).hexdigest()},
        "decisions": decisions,
        "gammas": list(PAPER_GAMMAS),
        "versions": versions(),
        "machine": machine() | {"load_1min": load},  # decision times mean little on a busy machine
        "heads": heads,
    }


def table(result: dict[str, Any]) -> Table:
    """The result for a terminal or a page."""
    header = [
        "head",
        "onnxruntime p50, µs",
        "p99",
        "scikit-learn p50, µs",
        "p99",
        "ratio of p50",
        "same γ",
        "KB",
        "paper, µs",
    ]
    made = Table(f"One decision among {len(result['gammas'])} γ, {result['decisions']} of each kind, in turns", header)
    for name, head in result["heads"].items():
        times = [f"{head[kind][share]:.1f}" for kind in ("onnx_us", "sklearn_us") for share in ("p50", "p99")]
        published = "–" if head["published_us"] is None else f"{head['published_us']:.0f}"
        ratio, same, size = f"{head['speedup_p50']:.0f}", f"{head['same_gamma']:.1%}", f"{head['bytes'] / 1000:.0f}"
        made.rows.append([name, *times, ratio, same, size, published])
    return made


def _by_onnx(controller: Controller) -> Decide:
    gammas = np.array(PAPER_GAMMAS, dtype=np.float32)

    def decide(signals: Array) -> int:
        *known, level = signals[0].tolist()
        return PAPER_GAMMAS[int(best_for_tokens(controller.acceptance_rates(known, level, PAPER_GAMMAS), gammas))]

    return decide


def by_sklearn(model: Any) -> Decide:
    """A decision as the paper's code makes it: one ``predict`` call for each γ."""
    gammas = np.array(PAPER_GAMMAS, dtype=np.float32)

    def decide(signals: Array) -> int:
        predicted = [model.predict(np.append(signals, gamma).reshape(1, -1))[0] for gamma in gammas]
        return PAPER_GAMMAS[int(best_for_tokens(np.clip(predicted, 0, 1), gammas))]

    return decide


def _measure(
    contenders: dict[str, tuple[Decide, Decide]], signals: Array, decisions: int, seed: int
) -> tuple[dict[str, tuple[list[float], list[float]]], dict[str, float]]:
    """Seconds of every decision by contender (ONNX, scikit-learn), and how often both chose the same γ."""
    rows = np.random.default_rng(seed).integers(0, len(signals), decisions)
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in contenders}
    agreed = dict.fromkeys(contenders, 0)
    for pair in contenders.values():
        for decide in pair:
            decide(signals[:1])
    for start in range(0, decisions, BLOCK):
        block = [signals[row : row + 1] for row in rows[start : start + BLOCK]]
        for name, pair in contenders.items():
            chosen = [_timed(decide, block, took) for decide, took in zip(pair, times[name], strict=True)]
            agreed[name] += sum(ours == theirs for ours, theirs in zip(*chosen, strict=True))
    return times, {name: count / decisions for name, count in agreed.items()}


def _timed(decide: Decide, block: list[Array], took: list[float]) -> list[int]:
    chosen = []
    for signals in block:
        begin = time.perf_counter()
        chosen.append(decide(signals))
        took.append(time.perf_counter() - begin)
    return chosen


def _percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile(seconds, share)) * 1e6, 2) for share in (50, 99)}


@app.command()
def heads(
    data: Annotated[Path, typer.Option(help="Step records, .csv or .parquet.")],
    json_file: JsonFile = None,
    decisions: Annotated[int, typer.Option(help="Of each kind; 1000 take a minute.", min=BLOCK)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the training and of the rows asked about.")] = 42,
    entropy_unit: Annotated[str, typer.Option(help="Of the data: bits, as released, or nats.")] = "bits",
) -> None:
    """Time a decision with each predictor through onnxruntime, and as the paper makes it with scikit-learn."""
    result = run(data, decisions, seed, entropy_unit)
    table(result).show()
    if json_file is not None:
        write_whole(json_file, json.dumps(result, indent=1, allow_nan=False) + "\n")


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()

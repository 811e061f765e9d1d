"""From step records to a checked artefact: train, convert, compare, write."""

from __future__ import annotations

from pathlib import Path

from speckv.benchmarks.replay.engine import rounds
from speckv.benchmarks.traces import read_traces
from speckv.controller.features import COMPRESSION_LEVELS, compression_level
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.records import Row, make_row, read_records
from speckv.controller.training import train
from speckv.export.artefact import Artefact, Metadata, library_versions, read_artefact, write_artefact
from speckv.export.convert import to_onnx
from speckv.export.parity import check_parity

TRAINED_WITH = ("numpy", "scikit-learn", "skl2onnx", "onnx")


LONG_GAMMAS = (20, 8, 3)
"""γ of the rounds played on traces: to the traces' depth, and shorter ones, which begin at other positions."""


def build(
    records: Path,
    out: Path,
    seed: int = 0,
    estimator: str = "mlp16",
    entropy_unit: str = "nats",
    traces: Path | None = None,
) -> Artefact:
    """Train on ``records`` and write the artefact ``out``; nothing is written unless ONNX agrees with the training.

    ``entropy_unit`` is that of the records; the artefact takes nats in any case. The survival head also learns from
    ``traces``, on which rounds of LONG_GAMMAS are played.
    """
    rows = read_records(records, entropy_unit)
    longer = rows_on_traces(traces) if traces else []
    trained = train(rows, seed, estimator, longer)
    model = to_onnx(trained.heads)
    difference = check_parity(trained.heads, model)
    metadata = Metadata(
        heads=list(trained.heads),
        gammas=sorted({row["gamma"] for row in rows}),
        training={
            **trained.report,
            "records": records.name,
            "traces": traces.name if traces else None,
            "entropy_unit": entropy_unit,
            "onnx_max_difference": difference,
        },
        versions=library_versions(*TRAINED_WITH),
    )
    write_artefact(model, metadata, out)
    return read_artefact(out)


def rows_on_traces(path: Path) -> list[Row]:
    """The records of fixed-γ speculation on the texts of a trace file, as it would have gone; without times."""
    traces, about = read_traces(path)
    compression = list(COMPRESSION_LEVELS)[compression_level(about["compression"])]
    rows = []
    for gamma in LONG_GAMMAS:
        for trace in traces:
            run = {"compression": compression, "gamma": gamma, "task": trace.task, "prompt_id": trace.prompt_id}
            for step, outcome in enumerate(rounds(FixedPolicy(gamma), trace, about["tokens"])):
                if outcome.drafted:
                    rows.append(make_row(outcome, run, step))
    return rows

"""From step records to a checked artefact: train, convert, compare, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speckv.controller.records import read_records
from speckv.controller.training import train
from speckv.controller.walks import TracedSequence
from speckv.export.artefact import Artefact, Metadata, library_versions, read_artefact, write_artefact
from speckv.export.convert import to_onnx
from speckv.export.parity import check_parity

TRAINED_WITH = ("numpy", "scikit-learn", "skl2onnx", "onnx")


def build(
    records: Path,
    out: Path,
    seed: int = 0,
    estimator: str = "mlp16",
    entropy_unit: str = "nats",
    sequences: Sequence[TracedSequence] = (),
    traces: Sequence[str] = (),
) -> Artefact:
    """Train on ``records`` and write the artefact ``out``; nothing is written unless ONNX agrees with the training.

    ``entropy_unit`` is that of the records; the artefact takes nats in any case. The survival head learns
    from ``sequences``, which came from ``traces``, the names of files; there is none without.
    """
    rows = read_records(records, entropy_unit)
    trained = train(rows, seed, estimator, sequences)
    model = to_onnx(trained.heads)
    difference = check_parity(trained.heads, model)
    metadata = Metadata(
        heads=list(trained.heads),
        gammas=sorted({row["gamma"] for row in rows}),
        training={
            **trained.report,
            "records": records.name,
            "traces": list(traces),
            "entropy_unit": entropy_unit,
            "onnx_max_difference": difference,
        },
        versions=library_versions(*TRAINED_WITH),
    )
    write_artefact(model, metadata, out)
    return read_artefact(out)

"""From step records to a checked artefact: train, convert, compare, write."""

from __future__ import annotations

from pathlib import Path

from speckv.controller.records import read_records
from speckv.controller.training import train
from speckv.export.artefact import Artefact, Metadata, library_versions, read_artefact, write_artefact
from speckv.export.convert import to_onnx
from speckv.export.parity import check_parity

TRAINED_WITH = ("numpy", "scikit-learn", "skl2onnx", "onnx")


def build(records: Path, out: Path, seed: int = 0) -> Artefact:
    """Train on ``records`` and write the artefact ``out``; nothing is written unless ONNX agrees with the training."""
    rows = read_records(records)
    trained = train(rows, seed)
    model = to_onnx(trained.heads)
    difference = check_parity(trained.heads, model)
    metadata = Metadata(
        heads=list(trained.heads),
        gammas=sorted({row["gamma"] for row in rows}),
        training={**trained.report, "records": records.name, "onnx_max_difference": difference},
        versions=library_versions(*TRAINED_WITH),
    )
    write_artefact(model, metadata, out)
    return read_artefact(out)

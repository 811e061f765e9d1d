"""From step records to a checked artefact: train, convert, compare, write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from speckv.benchmarks.traces import read_traces
from speckv.controller.features import compression_level
from speckv.controller.records import read_records
from speckv.controller.training import train
from speckv.controller.walks import Text
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
    traces: Sequence[Path] = (),
) -> Artefact:
    """Train on ``records`` and write the artefact ``out``; nothing is written unless ONNX agrees with the training.

    ``entropy_unit`` is that of the records; the artefact takes nats in any case. ``traces`` are the files that the
    survival head learns from; there is none without.
    """
    rows = read_records(records, entropy_unit)
    trained = train(rows, seed, estimator, read_texts(traces))
    model = to_onnx(trained.heads)
    difference = check_parity(trained.heads, model)
    metadata = Metadata(
        heads=list(trained.heads),
        gammas=sorted({row["gamma"] for row in rows}),
        training={
            **trained.report,
            "records": records.name,
            "traces": [path.name for path in traces],
            "entropy_unit": entropy_unit,
            "onnx_max_difference": difference,
        },
        versions=library_versions(*TRAINED_WITH),
    )
    write_artefact(model, metadata, out)
    return read_artefact(out)


def read_texts(paths: Iterable[Path]) -> list[Text]:
    """The texts of trace files, each with the compression that its file says."""
    texts = []
    for path in paths:
        traces, facts = read_traces(path)
        level = compression_level(facts["compression"])
        for trace in traces:
            signals = trace.entropies, trace.confidences
            texts.append(Text(trace.prompt_id, level, trace.matches, trace.lengths, *signals))
    return texts

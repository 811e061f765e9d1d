"""The shipped controller is what its command makes of the shipped records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from speckv.benchmarks.build import build
from speckv.benchmarks.prompts import load_prompts
from speckv.benchmarks.traces import read_traces
from speckv.controller.records import read_records
from speckv.integrations.runtime import DEFAULT_ARTEFACT, Controller

DATA = Path(__file__).parent.parent / "benchmarks" / "data"
RECORDS, TRACES = DATA / "qwen2.5-coder.parquet", DATA / "train-bf16.parquet"


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("remade") / "default.onnx"
    build(RECORDS, out, traces=TRACES)
    return out


def test_the_command_reproduces_it(remade: Path) -> None:
    """Byte for byte with the versions it was made with; other BLAS kernels may change last digits, so else to 2 %."""
    shipped, again = Controller.load(), Controller.load(remade)
    assert again.artefact.metadata.training["data_sha256"] == shipped.artefact.metadata.training["data_sha256"]
    if DEFAULT_ARTEFACT.read_bytes() == remade.read_bytes():
        return
    generator = np.random.default_rng(0)
    for level in (0, 1, 2):
        for _ in range(50):
            signals = tuple(generator.random(4) * [4, -1, 6, 1])
            for head in (Controller.acceptance_rates, Controller.survival):
                argument = (2, 4, 8) if head is Controller.acceptance_rates else 3
                answers = [np.array(head(one, signals, level, argument)) for one in (shipped, again)]  # type: ignore[operator]
                np.testing.assert_allclose(answers[0], answers[1], atol=0.02)


def test_nothing_it_was_trained_on_is_held_out() -> None:
    trained_on = {row["prompt_id"] for row in read_records(RECORDS)}
    trained_on |= {trace.prompt_id for trace in read_traces(TRACES)[0]}
    assert trained_on <= {prompt.id for prompt in load_prompts("train")}
    assert not trained_on & {prompt.id for prompt in load_prompts("heldout")}


def test_it_knows_more_than_the_base_rate() -> None:
    metrics = Controller.load().artefact.metadata.training["metrics"]
    assert metrics["survival"]["test_auc"] > 0.75
    assert metrics["survival"]["test_log_loss"] < 0.9 * metrics["survival"]["test_log_loss_of_the_base_rate"]
    assert metrics["acceptance_rate"]["test_corr"] > 0.5


def test_confident_drafts_survive() -> None:
    controller = Controller.load()
    sure, unsure = (0.02, -0.02, 0.05, 0.9), (3.0, -2.2, 5.0, 0.5)
    for level in (0, 1, 2):
        assert controller.survival(sure, level, 2) > 0.6 > 0.3 > controller.survival(unsure, level, 2)

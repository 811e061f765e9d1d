"""The shipped controller is what its command makes of the shipped records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pages import ROOT

from speckv.benchmarks.collect.traces import read_sequences
from speckv.benchmarks.prompts import load_prompts
from speckv.controller.records import read_records
from speckv.export.build import build
from speckv.integrations.runtime import DEFAULT_ARTEFACT, Controller

DATA = ROOT / "benchmarks" / "data"
RECORDS, TRACES = DATA / "qwen2.5-coder.parquet", sorted(DATA.glob("train-*.parquet"))


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("remade") / "default.onnx"
    build(RECORDS, out, sequences=read_sequences(TRACES), traces=[one.name for one in TRACES])
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
            signals = generator.random(4) * [4, 1, 6, 1]
            answers = [np.array(one.acceptance_rates(signals.tolist(), level, (2, 4, 8))) for one in (shipped, again)]
            np.testing.assert_allclose(answers[0], answers[1], atol=0.02)
            prefix = np.array([[*generator.random(5) * [4, -1, 6, 1, 1], level, 3]], np.float32)
            answers = [np.array(one.survival(prefix, (0, 1, 4))) for one in (shipped, again)]
            np.testing.assert_allclose(answers[0], answers[1], atol=0.02)


def test_nothing_it_was_trained_on_is_held_out() -> None:
    trained_on = {row["prompt_id"] for row in read_records(RECORDS)}
    trained_on |= {one.prompt_id for one in read_sequences(TRACES)}
    assert trained_on <= {prompt.id for prompt in load_prompts("train")}
    assert not trained_on & {prompt.id for prompt in load_prompts("heldout")}


def test_it_knows_more_than_the_base_rate() -> None:
    metrics = Controller.load().artefact.metadata.training["metrics"]
    assert metrics["survival"]["test_auc"] > 0.75
    assert metrics["survival"]["test_log_loss"] < 0.9 * metrics["survival"]["test_log_loss_of_the_base_rate"]
    assert metrics["acceptance_rate"]["test_corr"] > 0.5


def test_confident_drafts_survive() -> None:
    controller = Controller.load()
    for level in (0, 1, 2):
        prefixes = np.array(
            [[0.02, -0.02, 0.05, 0.9, 0.9, level, 2], [3.0, -2.2, 5.0, 0.5, 0.5, level, 2]], dtype=np.float32
        )
        sure, unsure = controller.survival(prefixes, (0, 1))
        assert sure.min() > 0.6 > 0.35 > unsure.max()


def test_what_is_known_before_drafting_tells() -> None:
    prefixes = np.array([[0, 0, 0, recent, recent, 0, 0] for recent in (0.3, 0.6, 0.9)], np.float32)
    answers = Controller.load().survival(prefixes, (1, 4, 8))
    assert (np.diff(answers, axis=0) > 0.05).all() and (np.diff(answers, axis=1) < 0).all()

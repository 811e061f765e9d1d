"""Training: examples by hand, splits by prompt, reproducibility, and that something is learnt."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speckv.controller.errors import SpecKVError
from speckv.controller.policy import Round
from speckv.controller.records import PAPER_COLUMNS, Row, make_row, read_records, write_records
from speckv.controller.training import (
    ESTIMATORS,
    Trained,
    acceptance_data,
    converged,
    digest,
    fit,
    held_out,
    make_model,
    survival_data,
    train,
)

pytestmark = pytest.mark.filterwarnings("error:Stochastic Optimizer")  # no wall of text for a user


@pytest.fixture(scope="module")
def trained(synthetic_rows: list[Row]) -> Trained:
    return train(synthetic_rows, seed=3)


def row(step: int, entropies: list[float], confidences: list[float], accepted: int, **changes: Any) -> Row:
    run = {"compression": "int8", "gamma": 3, "task": "math", "prompt_id": "p", "target": "t", "draft": "d"}
    return make_row(Round(0, entropies, confidences, accepted, accepted + 1), run | changes, step)


def test_examples_of_two_tiny_rounds_by_hand() -> None:
    rows = [row(0, [1.0, 3.0, 0.5], [0.5, 0.25, 0.75], 1), row(1, [0.5, 0.25], [1.0, 0.5], 2)]
    features, survived, prompts = survival_data(rows)
    logs = [math.log(0.5), math.log(0.5 * 0.25)]
    tried = 0.8 * 4 + 2  # the first round: one of two tokens that followed accepted ones
    expected = [
        # mean entropy, Σ ln confidence, max entropy, recent acceptance, level, drafted
        [0.0, 0.0, 0.0, 0.75, 1, 0],
        [1.0, logs[0], 1.0, 0.75, 1, 1],
        [2.0, logs[1], 3.0, 0.75, 1, 2],
        [0.0, 0.0, 0.0, (0.8 * 3 + 1) / tried, 1, 0],
        [0.5, 0.0, 0.5, (0.8 * 3 + 1) / tried, 1, 1],  # no prefix of two: whether a third survives is not known
    ]
    np.testing.assert_allclose(features, expected, rtol=1e-6)
    assert survived.tolist() == [1, 0, 0, 1, 1]  # accepted > 0, > 1, > 2 of 1; > 0, > 1 of 2
    assert prompts == ["p"] * 5
    assert (features.dtype, survived.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    "other",
    [{"prompt_id": "q"}, {"compression": "nf4"}, {"gamma": 4}, {"target": "u"}, {"target_dtype": "float16"}],
)
def test_the_round_before_must_be_of_the_same_generation(other: Row) -> None:
    before, after = row(0, [1.0], [0.5], 0), row(1, [0.5], [0.75], 1)

    def recent(rows: list[Row]) -> float:
        return float(survival_data(rows)[0][-1, 3])

    assert recent([before, after]) == pytest.approx(0.8 * 3 / (0.8 * 4 + 1))
    assert recent([before, after | other]) == 0.75
    assert recent([before, after | {"step": 2}]) == 0.75
    assert recent([after, before]) == 0.75


def test_prefixes_without_hope_teach_nothing() -> None:
    rows = [row(0, [1.0] * 4, [0.5, 0.05, 0.5, 0.5], 0, gamma=4)]  # after two, 0.025 are left; after three, 0.0125
    assert survival_data(rows)[0][:, 5].tolist() == [0, 1, 2]


def test_rates_of_whole_rounds() -> None:
    rows = [row(0, [1.0, 3.0], [0.5, 0.25], 1), row(1, [0.5], [1.0], 1, compression="fp16", gamma=6)]
    features, rates = acceptance_data(rows)
    assert features.tolist() == [[2.0, 0.375, 3.0, 0.25, 1, 3], [0.5, 1.0, 0.5, 1.0, 0, 6]]
    assert rates.tolist() == [0.5, 1.0]


def test_no_prompt_is_on_both_sides_of_the_split() -> None:
    groups = [f"prompt-{number % 11}" for number in range(200)]
    for seed in range(5):
        test = held_out(groups, seed)
        inside = {group for group, held in zip(groups, test, strict=True) if held}
        outside = {group for group, held in zip(groups, test, strict=True) if not held}
        assert not inside & outside
        assert (len(inside), len(outside)) == (2, 9)
        assert np.array_equal(test, held_out(groups, seed))
        backwards = held_out(groups[::-1], seed)[::-1]
        assert np.array_equal(test, backwards)  # whatever the order of the records
    assert len({held_out(groups, seed).tobytes() for seed in range(5)}) > 1


def test_too_few_prompts_to_split() -> None:
    with pytest.raises(SpecKVError, match="4 prompts are too few to split; profile at least 5"):
        train([row(0, [0.5, 0.5], [0.5, 0.5], 1, prompt_id=str(number % 4)) for number in range(20)])


def test_records_that_teach_nothing_are_refused() -> None:
    rows = [row(0, [0.1 * n] * 3, [0.9, 0.9, 0.1 * n], 3, prompt_id=str(n)) for n in range(1, 10)]
    with pytest.raises(SpecKVError, match="drafted tokens were always accepted, or never"):
        train(rows)


def test_both_heads_learn_and_say_how_well(trained: Trained, synthetic_rows: list[Row]) -> None:
    assert set(trained.heads) == {"acceptance_rate", "survival"}
    survival = trained.report["metrics"]["survival"]
    assert survival["test_log_loss"] < 0.95 * survival["test_log_loss_of_the_base_rate"]
    assert survival["test_auc"] > 0.65
    assert survival["test_mean_predicted"] == pytest.approx(survival["test_mean_survived"], abs=0.1)
    rates = [one["acceptance_rate"] for one in synthetic_rows]
    assert trained.report["metrics"]["acceptance_rate"]["test_mse"] < float(np.var(rates))
    assert trained.report["metrics"]["acceptance_rate"]["test_corr"] > 0.3
    sure, unsure = [[0.1, -0.06, 0.15, 0.9, 0, 2], [2.0, -2.5, 2.8, 0.5, 0, 2]]
    high, low = trained.heads["survival"].predict_proba(np.array([sure, unsure], dtype=np.float32))[:, 1]
    assert high > low + 0.2


def test_rates_that_never_vary_correlate_with_nothing() -> None:
    rows = [row(0, [0.1 * n] * 2, [0.9, 0.1 * n], 1, prompt_id=str(n)) for n in range(1, 10)]
    metrics = train([{name: one[name] for name in PAPER_COLUMNS} for one in rows]).report["metrics"]
    assert metrics["acceptance_rate"]["test_corr"] == 0.0
    json.dumps(metrics, allow_nan=False)


def test_the_report_says_what_was_trained_on(trained: Trained, synthetic_rows: list[Row]) -> None:
    report = json.loads(json.dumps(trained.report))
    assert (report["rows"], report["prompts"], report["seed"]) == (len(synthetic_rows), 24, 3)
    assert report["data_sha256"] == digest(synthetic_rows)


def test_the_report_says_whether_training_ended_by_itself(synthetic_rows: list[Row]) -> None:
    report = train(synthetic_rows, estimator="rf10").report
    assert report["converged"]["acceptance_rate"] is True  # a forest always does
    assert isinstance(report["converged"]["survival"], bool)
    model = fit(make_model("neural_network.MLPRegressor", {"max_iter": 2}, 0), *acceptance_data(synthetic_rows))
    assert not converged(model)
    assert converged(fit(make_model(*ESTIMATORS["ridge"], 0), *acceptance_data(synthetic_rows)))
    easy = np.tile(np.eye(6, dtype=np.float32), (20, 1))
    assert converged(fit(make_model(*ESTIMATORS["mlp16"], 0), easy, np.zeros(120)))


def test_the_same_seed_gives_the_same_numbers(synthetic_rows: list[Row]) -> None:
    first, again, other = (train(synthetic_rows[:40], seed) for seed in (3, 3, 4))
    features, _ = acceptance_data(synthetic_rows)
    for predict in (
        lambda found: found.heads["acceptance_rate"].predict(features),
        lambda found: found.heads["survival"].predict_proba(features)[:, 1],
    ):
        assert np.array_equal(predict(again), predict(first))
        assert not np.array_equal(predict(other), predict(first))
    assert again.report == first.report


def test_the_papers_columns_alone_train_the_papers_head(synthetic_rows: list[Row]) -> None:
    for left_out in ("entropies", "confidences", "prompt_id"):
        rows = [dict(one) for one in synthetic_rows[:40]]
        del rows[-1][left_out]
        assert set(train(rows).heads) == {"acceptance_rate"}


def test_the_digest_is_that_of_what_is_stored(synthetic_rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_records(synthetic_rows, path)
    read = read_records(path)
    assert read != synthetic_rows  # they were rounded
    assert digest(read) == digest(synthetic_rows)
    write_records(read, path)
    assert digest(read_records(path)) == digest(read)

    short = [{name: one[name] for name in PAPER_COLUMNS} for one in read]
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(PAPER_COLUMNS)[::-1])
        writer.writeheader()
        writer.writerows(short)
    assert digest(read_records(tmp_path / "rows.csv")) == digest(short) != digest(read)


def test_the_digest_sees_every_value_and_the_order(synthetic_rows: list[Row]) -> None:
    rows = synthetic_rows[:3]
    changed = [
        [rows[0] | {"accepted": rows[0]["accepted"] + 1}, *rows[1:]],
        [rows[0] | {"draft_ms": rows[0]["draft_ms"] + 0.01}, *rows[1:]],
        [rows[0] | {"confidences": [0.5, *rows[0]["confidences"][1:]]}, *rows[1:]],
        [rows[0] | {"prompt_id": "another"}, *rows[1:]],
        rows[::-1],
        rows[:2],
    ]
    assert len({digest(some) for some in (rows, *changed)}) == len(changed) + 1

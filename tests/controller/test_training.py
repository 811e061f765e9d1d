"""Training: examples by hand, splits by prompt, reproducibility, and that something is learnt."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import make_synthetic_sequences

from speckv.benchmarks.collect.steps import Step, make_row
from speckv.controller.errors import SpecKVError
from speckv.controller.features import RecentAcceptance
from speckv.controller.records import PAPER_COLUMNS, Row, read_records, write_records
from speckv.controller.training import (
    ESTIMATORS,
    SURVIVAL,
    Trained,
    acceptance_data,
    converged,
    digest,
    fit,
    held_out,
    make_model,
    mean_network,
    survival_metrics,
    train,
)
from speckv.controller.walks import TracedSequence, survival_data, walk

pytestmark = pytest.mark.filterwarnings("error:Stochastic Optimizer")  # no wall of sequence for a user


@pytest.fixture(scope="module")
def trained(synthetic_rows: list[Row]) -> Trained:
    return train(synthetic_rows, seed=3, sequences=make_synthetic_sequences(24))


def row(step: int, entropies: list[float], confidences: list[float], accepted: int, **changes: Any) -> Row:
    run = {"compression": "int8", "gamma": 3, "task": "math", "prompt_id": "p", "target": "t", "draft": "d"}
    return make_row(Step(0, entropies, confidences, accepted, accepted + 1), run | changes, step)


def sequence(
    confidences: list[list[float]], matches: list[int], level: int = 1, prompt_id: str = "p"
) -> TracedSequence:
    """A sequence whose entropies are 1 − confidence; runs shorter than the longest are filled up with NaN."""
    longest = max(map(len, confidences))
    filled = np.array([run + [np.nan] * (longest - len(run)) for run in confidences], np.float32)
    return TracedSequence(
        prompt_id, level, np.array(matches), np.array([len(run) for run in confidences]), 1 - filled, filled
    )


def test_the_examples_of_a_tiny_text_by_hand() -> None:
    tiny = sequence([[0.5, 0.25, 0.75], [0.5], [0.25]], [1, 1, 0])
    features, accepted, prompts = survival_data([tiny])
    first = features[:, 3] == 0.75
    logs = np.log([0.5, 0.5 * 0.25, 0.5 * 0.25 * 0.75])
    expected = {
        # mean entropy, Σ ln confidence, largest entropy, acceptances, level, drafted, further: whether of the first run
        **{(0, 0, 0, 0.75, 0.75, 1, 0, further): further <= 1 for further in (1, 2, 3)},
        **{(0.5, logs[0], 0.5, 0.75, 0.75, 1, 1, further): further <= 0 for further in (0, 1, 2)},
        **{(0.625, logs[1], 0.75, 0.75, 0.75, 1, 2, further): False for further in (0, 1)},
        (0.5, logs[2], 0.75, 0.75, 0.75, 1, 3, 0): False,
    }
    told = dict(zip(map(tuple, features[first].tolist()), accepted[first].tolist(), strict=True))
    assert len(told) == len(expected)
    for example, label in expected.items():
        near = [one for one in told if np.allclose(one, example, atol=1e-6)]
        assert len(near) == 1 and told[near[0]] == label, example
    assert set(prompts) == {"p"} and len(prompts) == len(features) == len(accepted)
    assert (features.dtype, accepted.dtype) == (np.float32, np.int64)


def test_a_walk_goes_on_behind_the_target_s_own_token_and_remembers() -> None:
    (one,) = make_synthetic_sequences(1, tokens=200)
    features, _, _ = survival_data([one], seed=7)
    generator = np.random.default_rng(7)
    expected = set()
    for mean in (2.0, 4.0, 6.0, 10.0):
        recent, place = RecentAcceptance(), 0
        for start, accepted, drafted in walk(one, mean, generator):
            assert start == place and 1 <= drafted <= one.lengths[start]
            assert accepted == min(drafted, one.matches[start])
            expected.add(tuple(np.array(recent.values, np.float32).tolist()))
            recent.add(accepted, drafted)
            place += accepted + 1
        assert place >= 200
    assert {tuple(values) for values in features[:, 3:5].tolist()} == expected


def test_prefixes_without_hope_teach_nothing() -> None:
    hopeless = sequence([[0.5, 0.05, 0.5, 0.5]], [0])  # after two, 0.025 are left; after three, 0.0125
    assert set(survival_data([hopeless])[0][:, 6].tolist()) == {0, 1, 2}


def test_a_confidence_of_zero_is_cut() -> None:
    features = survival_data([sequence([[0.0, 0.5]], [0])])[0]
    assert np.isfinite(features).all() and set(features[:, 6].tolist()) == {0}


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


def test_texts_that_teach_nothing_are_refused() -> None:
    rows = [row(0, [0.1 * n] * 3, [0.9, 0.9, 0.1 * n], 3, prompt_id=str(n)) for n in range(1, 10)]
    sequences = [sequence([[0.9], [0.5]], [1, 1], prompt_id=str(n)) for n in range(9)]
    with pytest.raises(SpecKVError, match="drafted tokens were always accepted, or never"):
        train(rows, sequences=sequences)


def test_both_heads_learn_and_say_how_well(trained: Trained, synthetic_rows: list[Row]) -> None:
    assert set(trained.heads) == {"acceptance_rate", "survival"}
    survival = trained.report["metrics"]["survival"]
    assert set(survival["test_log_loss_by_mode"]) == {
        *("before_drafting", "first_token", "next_token", "drafted_so_far", "further_ahead")
    }
    assert survival["test_log_loss"] < 0.95 * survival["test_log_loss_of_the_base_rate"]
    assert survival["test_auc"] > 0.65
    assert survival["test_mean_predicted"] == pytest.approx(survival["test_mean_survived"], abs=0.1)
    rates = [one["acceptance_rate"] for one in synthetic_rows]
    assert trained.report["metrics"]["acceptance_rate"]["test_mse"] < float(np.var(rates))
    assert trained.report["metrics"]["acceptance_rate"]["test_corr"] > 0.3
    sure, unsure = [[0.1, -0.06, 0.15, 0.9, 0.9, 0, 2, 1], [2.0, -2.5, 2.8, 0.5, 0.5, 0, 2, 1]]
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
    assert report["texts"] == 24
    assert report["data_sha256"] == digest(synthetic_rows, make_synthetic_sequences(24)) != digest(synthetic_rows)


def test_the_report_says_whether_training_ended_by_itself(synthetic_rows: list[Row]) -> None:
    report = train(synthetic_rows, estimator="rf10", sequences=make_synthetic_sequences(6)).report
    assert report["converged"]["acceptance_rate"] is True  # a forest always does
    assert isinstance(report["converged"]["survival"], bool)
    model = fit(make_model("neural_network.MLPRegressor", {"max_iter": 2}, 0), *acceptance_data(synthetic_rows))
    assert not converged(model)
    assert converged(fit(make_model(*ESTIMATORS["ridge"], 0), *acceptance_data(synthetic_rows)))
    easy = np.tile(np.eye(6, dtype=np.float32), (20, 1))
    assert converged(fit(make_model(*ESTIMATORS["mlp16"], 0), easy, np.zeros(120)))


def test_the_same_seed_gives_the_same_numbers(synthetic_rows: list[Row]) -> None:
    first, again, other = (
        train(synthetic_rows[:40], seed, sequences=make_synthetic_sequences(6)) for seed in (3, 3, 4)
    )
    features, _ = acceptance_data(synthetic_rows)
    asked = survival_data(make_synthetic_sequences(2))[0]
    for predict in (
        lambda found: found.heads["acceptance_rate"].predict(features),
        lambda found: found.heads["survival"].predict_proba(asked)[:, 1],
    ):
        assert np.array_equal(predict(again), predict(first))
        assert not np.array_equal(predict(other), predict(first))
    assert again.report == first.report


def test_without_texts_only_the_papers_head_is_trained(synthetic_rows: list[Row]) -> None:
    for left_out in (None, "entropies", "prompt_id"):
        rows = [{name: value for name, value in one.items() if name != left_out} for one in synthetic_rows[:40]]
        assert set(train(rows).heads) == {"acceptance_rate"}


def test_a_level_that_was_not_traced_changes_nothing() -> None:
    sequences = [one for one in make_synthetic_sequences(24) if one.level == 0]
    rows = [row(n, [0.1 * n] * 2, [0.9, 0.1 * n], n % 2, prompt_id=str(n)) for n in range(1, 10)]
    head = train(rows, sequences=sequences).heads["survival"]
    asked = survival_data(sequences[:1])[0]
    elsewhere = asked.copy()
    elsewhere[:, 5] = 2
    assert np.array_equal(head.predict_proba(asked), head.predict_proba(elsewhere))


def test_losses_by_mode_by_hand() -> None:
    features = np.zeros((4, 8), np.float32)
    features[:, 6:] = [(0, 1), (1, 1), (2, 0), (1, 3)]
    modes = survival_metrics(np.array([0.5, 0.8, 0.9, 0.4]), features, np.array([1, 1, 0, 0]))["test_log_loss_by_mode"]
    logs = -np.log([0.5, 0.8, 0.1, 0.6])
    expected = [logs[0], (logs[1] + logs[3]) / 2, logs[1], logs[2], logs[3]]
    assert list(modes.values()) == pytest.approx(expected)


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


def test_the_digest_sees_texts_but_not_what_fills_them_up() -> None:
    one = sequence([[0.5, 0.25, 0.75], [0.5]], [1, 1])
    filled = sequence([[0.5, 0.25, 0.75], [0.5]], [1, 1])
    filled.confidences[1, 1:] = 7.0
    others = [sequence([[0.5, 0.25, 0.75], [0.25]], [1, 1]), sequence([[0.5, 0.25, 0.75], [0.5]], [0, 1])]
    others += [
        sequence([[0.5, 0.25, 0.75], [0.5]], [1, 1], level=2),
        sequence([[0.5, 0.25, 0.75], [0.5]], [1, 1], 1, "q"),
    ]
    assert digest([], [one]) == digest([], [filled])
    assert len({digest([], [other]) for other in (one, *others)}) == 5


def test_the_mean_of_networks_is_one_that_answers_with_their_mean_logit() -> None:
    draws = np.random.default_rng(0)
    features = draws.normal(size=(400, 8)).astype(np.float32)
    survived = (features[:, 0] + draws.normal(size=400) > 0).astype(np.int64)
    members = [fit(make_model(*SURVIVAL, seed), features, survived) for seed in range(3)]
    answers = np.array([member.predict_proba(features)[:, 1] for member in members])
    whole = mean_network(members).predict_proba(features)[:, 1]
    logits = np.log(answers / (1 - answers))
    assert np.ptp(logits, axis=0).max() > 0.05, "alike, they would show nothing"
    assert np.allclose(np.log(whole / (1 - whole)), logits.mean(axis=0), atol=1e-4)

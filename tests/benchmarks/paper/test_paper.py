"""The paper's evaluation: its figures, the examination's arithmetic, the stored page, and bad data."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import ROOT

pytest.importorskip("sklearn")
from speckv.benchmarks.common.tables import Table, fill_page
from speckv.benchmarks.paper import __main__ as paper
from speckv.benchmarks.paper import predictors
from speckv.benchmarks.paper.data import GAMMAS, Release, read_release
from speckv.benchmarks.paper.estimate import fit_step_times, own_throughput, realised
from speckv.benchmarks.paper.published import COMPRESSIONS
from speckv.benchmarks.paper.report import tables
from speckv.controller.errors import SpecKVError

FOLDER = os.environ.get("SPECKV_PAPER_DATA", "")
needs_data = pytest.mark.skipif(not FOLDER, reason="SPECKV_PAPER_DATA does not name the paper's released data")


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    if not FOLDER:
        pytest.skip("SPECKV_PAPER_DATA does not name the paper's released data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictors, "TIMING_SECONDS", 0.0)
        return paper.run(Path(FOLDER), examine=True)


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks/results/paper.json").read_text())


def check_published(result: dict[str, Any]) -> None:
    """The figures that must hold, of a fresh or of the stored result."""
    assert result["test_mse"] == pytest.approx(0.0896, abs=0.0005)
    assert result["test_corr"] == pytest.approx(0.6853, abs=0.002)
    assert result["fixed4"] == pytest.approx(3.73, abs=0.01)
    assert result["fixed_best"] == pytest.approx(5.81, abs=0.01)
    assert result["task_oracle"] == pytest.approx(4.07, abs=0.01)
    assert result["speckv_fast"] == pytest.approx(5.82, abs=0.01)
    assert result["speckv_accurate"] == pytest.approx(6.39, abs=0.02)
    assert result["improvement_pct"] == pytest.approx(56.0, abs=0.3)
    published = result["published"]
    for name, key in (
        ("table1", "paper_table1_policy_comparison"),
        ("table2", "paper_table2_detailed_breakdown"),
    ):
        assert len(result[name]) == len(published[key])
        for here, there in zip(result[name], published[key], strict=True):
            for column, value in there.items():
                loose = 0.3 if column == "improvement_pct" else 0.02
                assert here[column] == (value if isinstance(value, str) else pytest.approx(value, abs=loose))


def test_figures_of_the_paper(result: dict[str, Any]) -> None:
    check_published(result)
    for row in result["published"]["paper_confidence_intervals"]:
        here = result["bootstrap"]["intervals"][row["policy"]]
        loose = 0.01 if row["policy"] == "SpecKV-accurate" else 0.002
        assert here["lower"] == pytest.approx(row["ci_lower"], abs=loose)
        assert here["upper"] == pytest.approx(row["ci_upper"], abs=loose)
    assert result["bootstrap"]["paired"]["p_value"] == 0
    for name, value in result["published"]["paper_numbers"]["feature_importance"].items():
        assert result["importances"][name] == pytest.approx(value, abs=0.002)
    for row in result["published"]["phase3_predictor_comparison"]:
        here = result["phase3"]["predictors"][row["model"]]
        assert here["mse"] == pytest.approx(row["val_mse"], abs=0.0005)
        assert here["corr"] == pytest.approx(row["val_corr"], abs=0.002)
    assert result["phase3"]["largest_difference_of_48_cells"] < 0.01
    assert set(result["decision_us"]) == {"Ridge", "MLP-16", "MLP-32", "RF-10", "RF-100"}
    assert all(value > 0 for value in result["decision_us"].values())


def test_examination(result: dict[str, Any]) -> None:
    examination = result["examination"]
    assert examination["variants"]["as published"]["gamma_shares"]["8"] == pytest.approx(0.93, abs=0.01)
    plain = examination["variants"]["not refitted on the test steps"]
    assert plain["gamma_shares"]["8"] == pytest.approx(0.98, abs=0.01)
    assert plain["corr"] == pytest.approx(result["test_corr"])
    recorded = [examination["fixed"][f"Fixed-{gamma}"]["tokens_per_step"] for gamma in GAMMAS]
    assert recorded == pytest.approx([2.61, 3.76, 4.63, 5.24], abs=0.01)
    assert sum(examination["fixed"][f"Fixed-{gamma}"]["n"] for gamma in GAMMAS) == 5112
    for compression, (base, slope) in {
        "fp16": (20.2, 10.5),
        "int8": (90.4, 10.4),
        "nf4": (36.4, 10.6),
    }.items():
        time = examination["step_ms"][compression]
        assert (time["base_ms"], time["token_ms"]) == pytest.approx((base, slope), abs=0.1)
        for gamma in GAMMAS:  # the fit must agree with the clock over whole runs
            rate = examination["fixed"][f"Fixed-{gamma}"]["by_compression"][compression]["tokens_per_s"]
            assert rate == pytest.approx(examination["measured_tokens_per_s"][compression][str(gamma)], rel=0.02)
    assert examination["facts"]["min_entropy_over_bound_in_bits"] > 0.999
    # A twin in the training set is worth more to a forest than to 16 units.
    assert examination["forest"]["split by prompt"]["corr"] < result["predictors"]["RF-100"]["corr"] - 0.15
    for variant in examination["variants"].values():
        for policy in variant["realised"].values():
            assert policy["n"] == sum(part["n"] for part in policy["by_compression"].values())
        throughput = variant["realised"]["SpecKV, throughput"]["overall"]["vs_best_fixed"]["pct"]
        assert throughput > variant["realised"]["SpecKV"]["overall"]["vs_best_fixed"]["pct"]


def test_stored_result_is_what_the_command_gives(result: dict[str, Any], stored: dict[str, Any]) -> None:
    assert stored["data"] == result["data"]
    assert stored["table2"] == [pytest.approx(row, abs=0.01) for row in result["table2"]]
    for name, variant in stored["examination"]["variants"].items():
        fresh = result["examination"]["variants"][name]
        assert variant["gamma_shares"] == pytest.approx(fresh["gamma_shares"], abs=0.02)
        assert variant["predicted"] == pytest.approx(fresh["predicted"], rel=0.02)


def test_stored_result_and_page(stored: dict[str, Any]) -> None:
    check_published(stored)
    assert stored["command"] and stored["machine"]["cpu"] and stored["versions"]["scikit-learn"]
    page = (ROOT / "docs/paper.md").read_text()
    assert page.count("<!-- table: ") == len(tables(stored))
    assert fill_page(page, tables(stored)) == page
    assert (ROOT / "docs/paper.png").stat().st_size > 10_000


def test_page_with_an_unknown_table() -> None:
    made = {"one": Table("One", ("a", "b"), [("1", "2")])}
    page = "x\n<!-- table: one -->\nold\n<!-- end of table -->\ny"
    filled = "x\n<!-- table: one -->\n| a | b |\n| --- | ---: |\n| 1 | 2 |\n<!-- end of table -->\ny"
    assert fill_page(page, made) == filled
    with pytest.raises(SpecKVError, match="table two"):
        fill_page("<!-- table: two -->\n<!-- end of table -->", made)


def small_release() -> Release:
    """Two prompts, every γ once per prompt and compression; γ gives γ tokens in prompt 0, else 1."""
    rows = list(itertools.product(COMPRESSIONS, (0, 1), GAMMAS))
    features = np.zeros((len(rows), 6))
    features[:, 5] = [gamma for *_, gamma in rows]
    tokens = np.array([gamma if prompt == 0 else 1 for _, prompt, gamma in rows], dtype=float)
    experiments = [
        {"compression": c, "gamma": g, "num_tokens": 1, "num_steps": 2, "elapsed_sec": 2 * (0.02 + 0.01 * g)}
        for c, _, g in rows
    ]
    return Release(
        features=features,
        rates=np.zeros(len(rows)),
        tokens=tokens,
        drafted=features[:, 5].astype(int),
        steps=np.zeros(len(rows), dtype=int),
        compressions=np.array([c for c, *_ in rows]),
        tasks=np.array(["code"] * len(rows)),
        prompts=np.array([prompt for _, prompt, _ in rows]),
        experiments=experiments,
        best_gamma={},
        published={},
    )


def test_matched_action_estimate_by_hand() -> None:
    release = small_release()
    times = fit_step_times(release)
    assert (times["nf4"].base_ms, times["nf4"].token_ms) == pytest.approx((20, 10))
    count = len(release.tokens)
    choices = {f"Fixed-{gamma}": np.full(count, index) for index, gamma in enumerate(GAMMAS)}
    choices["knows the prompt"] = np.where(release.prompts == 0, 3, 0)
    step = np.tile([40.0, 60.0, 80.0, 100.0], (count, 1))
    report = realised(release, np.arange(count), choices, step)
    assert report["Fixed-4"]["n"] == 6
    assert report["Fixed-4"]["tokens_per_step"] == 2.5
    assert report["Fixed-4"]["tokens_per_s"] == pytest.approx(1000 * 5 / 120)
    clever = report["knows the prompt"]
    assert clever["n"] == 6
    assert clever["by_compression"]["fp16"]["tokens_per_s"] == pytest.approx(1000 * 9 / 140)
    assert clever["weighted"]["tokens_per_step"] == pytest.approx(4.5)  # every γ has the same share here
    # Fixed-8 is the best fixed γ: 9 tokens in 200 ms.
    assert clever["overall"]["vs_best_fixed"]["pct"] == pytest.approx(100 * (200 / 140 - 1))
    assert clever["overall"]["vs_fixed4"]["pct"] == pytest.approx(100 * ((9 / 140) / (5 / 120) - 1))


def test_own_throughput_is_the_best_of_all_policies() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        tokens = 1 + np.sort(generator.random((4, 4)) * 5, axis=1)
        times = 20 + 10 * np.tile(np.array(GAMMAS, dtype=float), (4, 1)) * generator.uniform(0.2, 2)
        rates = [
            tokens[range(4), list(policy)].sum() / times[range(4), list(policy)].sum()
            for policy in itertools.product(range(4), repeat=4)
        ]
        assert own_throughput(tokens, times) == pytest.approx(max(rates))


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["paper", *arguments])
    with pytest.raises(SystemExit) as stop:
        paper.main()
    return int(stop.value.code or 0)


def test_mistakes_without_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("SPECKV_PAPER_DATA", raising=False)
    for arguments, words in (
        ([], "--data or SPECKV_PAPER_DATA"),
        (["--data", str(tmp_path / "none")], "no such folder"),
        (["--data", str(tmp_path)], "phase2_step_results.csv: no such file"),
        (["--data", str(tmp_path), "--plot", "x.png"], "add --examine"),
        (["--data", str(tmp_path), "--page", str(tmp_path / "none.md")], "no such page"),
    ):
        assert run_command(monkeypatch, *arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and "Traceback" not in error


@needs_data
@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("phase2_step_results.csv", "fp16,2,code,0,0,0.0,1,", "fp16,2,code,0,9,0.0,1,", "row 2: accepted 9"),
        ("phase2_step_results.csv", "\nfp16,2,code,0,", "\nfp16,2,code,1,", "runs"),
        ("phase2_step_results.csv", "\nfp16,2,code,1,", "\nfp16,3,code,1,", "gamma 3"),
        ("phase2_experiment_results.csv", ",1.317,", ",fast,", "line 2: elapsed_sec is 'fast'"),
        ("phase2_experiment_results.csv", ",0.8182,32", ",0.8182,31", "run 1 is not that of"),
        ("phase2_experiment_results.csv", "\nnf4,8,chat,", "\nnf4,8,math,", "not every prompt"),
        ("phase2_optimal_gamma.csv", "nf4,math,6", "nf4,math,7", "known γ"),
        ("paper_table1_policy_comparison.csv", "Overall", "All", "not the release's"),
        ("paper_numbers.json", '"fast_test_mse"', '"mse"', "fast_test_mse"),
        ("paper_numbers.json", "{", "", "not the release's numbers"),
        (
            "phase3_policy_comparison.csv",
            "SpecKV,nf4,chat,4.749",
            "SpecKV,nf4,chat,nan",
            "mean_expected_tokens",
        ),
        ("paper_confidence_intervals.csv", "ci_lower", "low", "ci_lower"),
    ],
)
def test_damaged_data(tmp_path: Path, name: str, old: str, new: str, words: str) -> None:
    for file in Path(FOLDER).iterdir():
        (tmp_path / file.name).symlink_to(file.resolve())
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).unlink()
    (tmp_path / name).write_text(text.replace(old, new, 1))
    with pytest.raises(SpecKVError) as error:
        read_release(tmp_path)
    assert words in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


@needs_data
def test_missing_file(tmp_path: Path) -> None:
    for file in Path(FOLDER).iterdir():
        if file.name != "paper_confidence_intervals.csv":
            (tmp_path / file.name).symlink_to(file.resolve())
    with pytest.raises(SpecKVError, match=r"paper_confidence_intervals\.csv: no such file"):
        read_release(tmp_path)

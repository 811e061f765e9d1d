"""The closed form, the guide's table, costs, and what the command refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from speckv.benchmarks import simulate as module
from speckv.benchmarks.simulate import (
    GUIDE_PRINTED,
    GUIDE_SCRIPT,
    Costs,
    best,
    expected_tokens,
    implied_alpha,
    scenarios,
    simulate,
)
from speckv.controller.errors import SpecKVError

NO_COSTS: dict[str, float | None] = {"draft_ms": None, "verify_ms": None, "row_ms": None}


def test_guides_table_to_two_decimals() -> None:
    chosen = scenarios((), None, NO_COSTS)
    for name, row in {
        "FP16": "1.82 2.44 3.13 3.47",
        "INT8": "1.78 2.31 2.84 3.03",
        "NF4": "1.71 2.18 2.50 2.53",
    }.items():
        alphas, costs = chosen[f"{name}, as printed"]
        assert " ".join(f"{point.tokens:.2f}" for point in simulate(alphas, costs)) == row
        assert list(alphas) == [1, 2, 4, 8]


def test_guides_script_gives_five_of_its_twelve_figures() -> None:
    same = {
        (name, gamma)
        for name, rates in GUIDE_SCRIPT.items()
        for gamma, alpha in rates.items()
        if round(expected_tokens(alpha, gamma), 2) == GUIDE_PRINTED[name][gamma]
    }
    assert same == {("FP16", 1), ("INT8", 1), ("NF4", 1), ("FP16", 2), ("INT8", 2)}


@pytest.mark.parametrize("alpha", [0.0, 1e-9, 0.3, 0.5, 0.82, 0.999999, 1 - 1e-15, 1.0])
@pytest.mark.parametrize("gamma", [0, 1, 4, 8, 40])
def test_closed_form_is_the_sum(alpha: float, gamma: int) -> None:
    assert expected_tokens(alpha, gamma) == pytest.approx(sum(alpha**k for k in range(gamma + 1)), rel=1e-12)


def test_closed_form_is_the_mean_of_a_simulation() -> None:
    accepted = np.random.default_rng(0).random((200_000, 6)) < 0.7
    tokens = 1 + np.cumprod(accepted, axis=1).sum(axis=1)  # up to the first rejection, and the target's own
    assert tokens.mean() == pytest.approx(expected_tokens(0.7, 6), abs=0.02)


def test_edges() -> None:
    assert expected_tokens(0, 8) == 1
    assert expected_tokens(1, 8) == 9
    assert expected_tokens(0.5, 0) == 1
    for alpha in (-0.1, 1.1, float("nan"), float("inf")):
        with pytest.raises(SpecKVError, match="within 0 … 1"):
            expected_tokens(alpha, 4)
    with pytest.raises(SpecKVError, match="gamma -1"):
        expected_tokens(0.5, -1)


def test_implied_alpha_inverts_the_closed_form() -> None:
    for alpha in (0.0, 0.3, 0.763, 1.0):
        assert implied_alpha(expected_tokens(alpha, 4), 4) == pytest.approx(alpha, abs=1e-9)
    with pytest.raises(SpecKVError, match="within 1"):
        implied_alpha(5.5, 4)


def test_costs_by_hand() -> None:
    costs = Costs(draft_ms=10, verify_ms=50, row_ms=2)
    assert costs.step_ms(4) == 98
    points = simulate({0: 0.8, 1: 0.8, 4: 0.8}, costs)
    assert [point.tokens for point in points] == pytest.approx([1, 1.8, 3.3616])
    assert [point.tokens_per_s for point in points] == pytest.approx([20, 1800 / 62, 3361.6 / 98])
    assert [point.speedup for point in points] == pytest.approx([1, 90 / 62, 168.08 / 98])
    assert best(points) == {"tokens_per_step": 4, "tokens_per_s": 4}


def test_best_gamma_under_costs() -> None:
    chosen = scenarios((), None, NO_COSTS)
    fastest = {name: best(simulate(*scenario)) for name, scenario in chosen.items()}
    assert {name: found["tokens_per_step"] for name, found in fastest.items() if "printed" in name} == {
        "FP16, as printed": 8,
        "INT8, as printed": 8,
        "NF4, as printed": 8,
    }
    assert [fastest[f"{name}, as printed"]["tokens_per_s"] for name in ("FP16", "INT8", "NF4")] == [1, 4, 2]
    assert best(simulate({1: 0.2, 4: 0.2}, Costs(draft_ms=50, verify_ms=50)))["tokens_per_s"] == 0  # plain


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["simulate", *arguments])
    with pytest.raises(SystemExit) as stop:
        module.main()
    return int(stop.value.code or 0)


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.json"
    assert run_command(monkeypatch, "--json", str(out)) == 0
    shown = capsys.readouterr().out
    for row in GUIDE_PRINTED.values():
        for value in row.values():
            assert f"{value:.2f}" in shown
    assert json.loads(out.read_text())["FP16, as printed"]["best"]["tokens_per_step"] == 8
    arguments = (
        "--alpha",
        "0.9",
        "--gammas",
        "0,3",
        "--draft-ms",
        "60",
        "--verify-ms",
        "170",
        "--row-ms",
        "0",
    )
    assert run_command(monkeypatch, *arguments) == 0
    assert "3.44" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--alpha 1.5", "alpha 1.5"),
        ("--alpha nan", "within 0 … 1"),
        ("--draft-ms 0", "--draft-ms 0"),
        ("--verify-ms -3", "--verify-ms -3"),
        ("--row-ms inf", "--row-ms inf"),
        ("--gammas 1;2", "--gammas 1;2"),
        ("--gammas -1,2 --alpha 0.5", "below 0"),
        ("--gammas 3", "no figure for γ 3"),
    ],
)
def test_refused(
    arguments: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, *arguments.split()) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and "Traceback" not in error

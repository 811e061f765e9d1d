"""The paper command's tables: every figure beside the published one."""

from __future__ import annotations

from collections.abc import Callable

from speckv.benchmarks.common.tables import Table
from speckv.benchmarks.paper.published import POLICIES
from speckv.benchmarks.paper.report_examined import EXAMINED, Result


def tables(result: Result) -> dict[str, Table]:
    """Every table that ``result`` (what the command stores) has figures for, by the name the page uses."""
    makers: dict[str, Callable[[Result], Table]] = {
        "headline": _headline,
        "predictors": _predictors,
        "policies": _policies,
        "cells": _cells,
        "bootstrap": _bootstrap,
        "importances": _importances,
        "phase3": _phase3,
        "provenance": _provenance,
    }
    if "examination" in result:
        makers |= EXAMINED
    return {name: make(result) for name, make in makers.items()}


def _beside(here: float, published: float, digits: int) -> tuple[str, str, str]:
    return f"{here:.{digits}f}", f"{published:.{digits}f}", f"{here - published:+.{digits}f}"


def _cell(here: float, published: float, digits: int = 2) -> str:
    return f"{here:.{digits}f} ({published:.{digits}f}, {here - published:+.{digits + 1}f})"


def _headline(result: Result) -> Table:
    table = Table("Key figures", ("", "here", "published", "difference"))
    published = result["published"]
    numbers, overall = published["paper_numbers"], published["paper_table1_policy_comparison"][-1]
    improvement = numbers["results"]["overall_improvement_pct"]
    table.rows = [
        ("MLP-16: test MSE", *_beside(result["test_mse"], numbers["predictor"]["fast_test_mse"], 4)),
        (
            "MLP-16: test correlation",
            *_beside(result["test_corr"], numbers["predictor"]["fast_test_corr"], 4),
        ),
        *(
            (f"{policy}: expected tokens per step", *_beside(result[key], overall[policy], 2))
            for policy, key in zip(
                POLICIES,
                ("fixed4", "fixed_best", "task_oracle", "speckv_fast", "speckv_accurate"),
                strict=True,
            )
        ),
        ("SpecKV-fast over Fixed-4, %", *_beside(result["improvement_pct"], improvement, 1)),
    ]
    return table


def _predictors(result: Result) -> Table:
    header = ("predictor", "MSE", "published", "correlation", "published", "decision, µs", "published")
    table = Table("Predictors on the test steps", header)
    numbers = result["published"]["paper_numbers"]["predictor"]
    known: dict[str, dict[str, float]] = {
        "MLP-16": {
            "mse": numbers["fast_test_mse"],
            "corr": numbers["fast_test_corr"],
            "ms": numbers["fast_overhead_ms"],
        },
        "RF-100": {
            "corr": numbers["reference_corr"],
            "ms": numbers["reference_overhead_ms"],
        },
    }
    for name, values in result["predictors"].items():
        row = [name]
        for key in ("mse", "corr"):
            stated = known.get(name, {}).get(key)
            row += [f"{values[key]:.4f}", "–" if stated is None else f"{stated:.4f}"]
        stated = known.get(name, {}).get("ms")
        row += [f"{result['decision_us'][name]:,.0f}", "–" if stated is None else f"{1e3 * stated:,.0f}"]
        table.rows.append(row)
    return table


def _policies(result: Result) -> Table:
    table = Table("Table 1, expected tokens per step: here (published, difference)", ("", *POLICIES))
    for here, published in zip(result["table1"], result["published"]["paper_table1_policy_comparison"], strict=True):
        table.rows.append([here["compression"], *(_cell(here[name], published[name]) for name in POLICIES)])
    return table


def _cells(result: Result) -> Table:
    names = ("Fixed-4", "SpecKV")
    table = Table("Table 2: here (published, difference)", ("", "task", *names, "improvement, %"))
    for here, published in zip(result["table2"], result["published"]["paper_table2_detailed_breakdown"], strict=True):
        figures = (_cell(here[name], published[name]) for name in names)
        gain = _cell(here["improvement_pct"], published["improvement_pct"], 1)
        table.rows.append([here["compression"], here["task"], *figures, gain])
    return table


def _bootstrap(result: Result) -> Table:
    table = Table("Bootstrap over test steps", ("", "mean", "95 % interval", "published mean", "published interval"))
    for published in result["published"]["paper_confidence_intervals"]:
        here = result["bootstrap"]["intervals"][published["policy"]]
        interval = f"{here['lower']:.3f} … {here['upper']:.3f}"
        stated = f"{published['ci_lower']:.3f} … {published['ci_upper']:.3f}"
        table.rows.append([published["policy"], f"{here['mean']:.3f}", interval, f"{published['mean']:.3f}", stated])
    paired, stated = result["bootstrap"]["paired"], result["published"]["paper_numbers"]["statistical_test"]
    interval = f"{paired['lower']:.3f} … {paired['upper']:.3f}, p = {paired['p_value']:.4f}"
    published_test = (f"{stated['mean_diff']:.3f}", f"p = {stated['p_value']:.4f}")
    table.rows.append(["SpecKV-fast − Fixed-4", f"{paired['mean_difference']:.3f}", interval, *published_test])
    return table


def _importances(result: Result) -> Table:
    table = Table("Feature importances", ("feature", "here", "published", "difference"))
    published = result["published"]["paper_numbers"]["feature_importance"]
    for name, value in sorted(result["importances"].items(), key=lambda item: -item[1]):
        table.rows.append([name, *_beside(value, published[name], 3)])
    return table


def _phase3(result: Result) -> Table:
    header = ("predictor", "MSE", "published", "correlation", "published")
    table = Table("The earlier evaluation (phase 3), validation steps", header)
    for published in result["published"]["phase3_predictor_comparison"]:
        here = result["phase3"]["predictors"][published["model"]]
        figures = (here["mse"], published["val_mse"], here["corr"], published["val_corr"])
        table.rows.append([published["model"], *(f"{figure:.4f}" for figure in figures)])
    return table


def _provenance(result: Result) -> Table:
    table = Table("Made by", ("", ""))
    machine, versions = result["machine"], result["versions"]
    load = machine["load_1min"]
    table.rows = [
        ("command", f"`{result['command']}`"),
        ("data", ", ".join(f"{name}, sha256 {digest[:16]}…" for name, digest in result["data"].items())),
        ("versions", ", ".join(f"{name} {versions[name]}" for name in ("python", "numpy", "scikit-learn"))),
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"),
        ("load when it began", "unknown" if load is None else f"{load:.1f}"),
        ("seconds", f"{result['seconds']:.0f}"),
    ]
    return table

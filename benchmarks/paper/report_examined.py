"""The paper command's tables of the examination: what was predicted beside what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from speckv.benchmarks.common.tables import Table
from speckv.benchmarks.paper.data import GAMMAS
from speckv.benchmarks.paper.published import COMPRESSIONS

Result = Mapping[str, Any]


def _facts(result: Result) -> Table:
    facts, variants = result["examination"]["facts"], result["examination"]["variants"]
    table = Table("The records", ("", "value"))
    table.rows = [
        ("steps, runs, prompts", f"{facts['steps']:,}, {facts['runs']}, {facts['prompts']}"),
        ("steps that drafted fewer tokens than the γ they are recorded under", str(facts["cut_steps"])),
        (
            "test steps with the same γ and signals as a training step",
            _pct(facts["test_steps_with_a_twin_in_training"]),
        ),
        (
            "smallest max_draft_entropy over its lower bound in bits",
            f"{facts['min_entropy_over_bound_in_bits']:.3f}",
        ),
        (
            "γ = 8 answers on the test steps, as published",
            _pct(variants["as published"]["gamma_shares"]["8"]),
        ),
        ("γ = 8 answers on the test steps, not refitted", _pct(_plain(result)["gamma_shares"]["8"])),
        ("MLP-16: correlation split by step, by prompt", _both(_plain(result), variants["split by prompt"])),
        (
            "RF-100: correlation split by step, by prompt",
            _both(result["predictors"]["RF-100"], result["examination"]["forest"]["split by prompt"]),
        ),
        (
            "RF-100: correlation on the test steps once refitted on them",
            f"{result['refitted']['RF-100']['corr']:.3f}",
        ),
    ]
    return table


def _plain(result: Result) -> Any:
    return result["examination"]["variants"]["not refitted on the test steps"]


def _both(by_step: Mapping[str, float], by_prompt: Mapping[str, float]) -> str:
    return f"{by_step['corr']:.3f}, {by_prompt['corr']:.3f}"


def _pct(share: float) -> str:
    return f"{100 * share:.1f} %"


def _promise(result: Result) -> Table:
    header = ("", "steps", "correlation", "γ = 8", "predicted: Fixed-4", "SpecKV", "gain")
    table = Table("Tokens per step, predicted and recorded", (*header, "recorded: Fixed-4 (n)", "SpecKV (n)", "gain"))
    for name, variant in result["examination"]["variants"].items():
        predicted, recorded = variant["predicted"], variant["realised"]
        counted = [f"{recorded[p]['tokens_per_step']:.2f} ({recorded[p]['n']})" for p in ("Fixed-4", "SpecKV")]
        table.rows.append(
            [
                name,
                str(variant["steps"]),
                f"{variant['corr']:.3f}",
                _pct(variant["gamma_shares"]["8"]),
                f"{predicted['Fixed-4']:.2f}",
                f"{predicted['SpecKV']:.2f}",
                f"{predicted['improvement_pct']:+.1f} %",
                *counted,
                _gain(recorded["SpecKV"]["overall"]["tokens_per_step_vs_fixed4"]),
            ]
        )
    return table


def _throughput(result: Result) -> Table:
    header = ("", "objective", "n", "tokens per step", *(f"{c}, tokens/s" for c in COMPRESSIONS))
    header += ("against Fixed-4", "against the best fixed γ", "the same, weighted")
    table = Table("Tokens per second (matched-action estimate)", header)
    for name, variant in result["examination"]["variants"].items():
        for policy, objective in (("SpecKV", "tokens"), ("SpecKV, throughput", "throughput")):
            recorded = variant["realised"][policy]
            rates = [f"{part['tokens_per_s']:.1f}" for part in recorded["by_compression"].values()]
            overall = recorded["overall"]
            ratios = [_gain(overall["vs_fixed4"]), _gain(overall["vs_best_fixed"])]
            weighted = f"{overall['weighted_vs_best_fixed_pct']:+.1f} %"
            tokens = f"{recorded['tokens_per_step']:.2f}"
            table.rows.append([name, objective, str(recorded["n"]), tokens, *rates, *ratios, weighted])
    return table


def _fixed(result: Result) -> Table:
    examination = result["examination"]
    measured = examination["measured_tokens_per_s"]
    header = ["", "n", "tokens per step", "against Fixed-4"]
    for compression in COMPRESSIONS:
        time = examination["step_ms"][compression]
        header.append(f"{compression}, tokens/s at {time['base_ms']:.1f} + {time['token_ms']:.1f} γ ms (measured)")
    table = Table("Fixed γ on all steps", header)
    for gamma in GAMMAS:
        recorded = examination["fixed"][f"Fixed-{gamma}"]
        rates = [
            f"{part['tokens_per_s']:.1f} ({measured[compression][str(gamma)]:.1f})"
            for compression, part in recorded["by_compression"].items()
        ]
        gain = f"{recorded['overall']['tokens_per_step_vs_fixed4']['pct']:+.1f} %"
        table.rows.append([f"Fixed-{gamma}", str(recorded["n"]), f"{recorded['tokens_per_step']:.2f}", gain, *rates])
    return table


def _gain(interval: Mapping[str, float] | None) -> str:
    if interval is None:
        return "–"
    return f"{interval['pct']:+.1f} % ({interval['lower']:+.1f} … {interval['upper']:+.1f})"


EXAMINED: dict[str, Callable[[Result], Table]] = {
    "facts": _facts,
    "promise": _promise,
    "throughput": _throughput,
    "fixed": _fixed,
}
"""The makers by the name the page uses."""

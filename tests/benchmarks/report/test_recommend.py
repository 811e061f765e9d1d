"""What is recommended where a result was measured: settings, reasons, and honesty about intervals."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bench_results import LEVEL, LOSES, PAYS, Where, bench_result, both_frameworks, save

from speckv.benchmarks.cli import main as cli
from speckv.benchmarks.report.commands import commands
from speckv.benchmarks.report.reading import Place, Result, read
from speckv.benchmarks.report.recommend import choice, recommendations
from speckv.benchmarks.report.verdict import details

HERE = ("transformers", "bf16", 1)
SERVER = ("sglang", "bf16", 1)


def reading(tmp_path: Path, rates: dict[Where, dict[str, float]], **more: Any) -> Result:
    return read(save(bench_result(rates, **more), tmp_path / "r.json"))


def said(result: Result) -> str:
    return "\n\n".join(recommendations(result))


def test_speckv_where_its_interval_is_above_1(tmp_path: Path) -> None:
    result = reading(tmp_path, {HERE: PAYS, SERVER: PAYS})
    assert choice(result, Place(*HERE))[0] is None
    text = said(result)
    assert "Use speckv: " in text and "attach(target, draft)\n" in text
    assert "--speculative-algorithm SPECKV --speculative-num-steps 8" in text
    assert "--model-path TARGET/a" in text and "--speculative-draft-model-path DRAFT/b" in text
    assert "does not pay" not in text


def test_compressed_weights_are_asked_for_and_how_a_server_loads_them(tmp_path: Path) -> None:
    for regime, draft, load in (("nf4", "DRAFT/b", "auto"), ("nf4-draft4", "DRAFT", "bitsandbytes")):
        text = said(reading(tmp_path, {("sglang", regime, 1): PAYS}))
        assert "# TARGET: a folder of its weights as bitsandbytes quantises them to nf4" in text
        assert ("# DRAFT: " in text) == (draft == "DRAFT")
        launch = shlex.split(text[text.index("python -m sglang") :].replace("\\\n", "").splitlines()[0])
        given = dict(zip(launch[3::2], launch[4::2], strict=True))
        assert given["--model-path"] == "TARGET" and given["--load-format"] == "bitsandbytes"
        assert given["--speculative-draft-model-path"] == draft
        assert given["--speculative-draft-load-format"] == load


def test_a_fixed_gamma_that_is_better_is_given(tmp_path: Path) -> None:
    rates = PAYS | {"fixed-4": 1.7}
    result = reading(tmp_path, {HERE: rates, SERVER: rates})
    assert choice(result, Place(*HERE))[0] == 4
    text = said(result)
    assert "better beyond its interval" in text and "in hindsight" in text and "attach(target, draft, gamma=4)" in text
    assert "--speculative-algorithm STANDALONE --speculative-num-steps 4" in text
    assert "--speculative-num-draft-tokens 5" in text


def test_a_heads_flags_are_sglangs_own(tmp_path: Path) -> None:
    result = reading(tmp_path, {SERVER: PAYS})
    result = msgspec.structs.replace(result, settings={**result.settings, "draft_kind": "eagle3", "pair": "smollm2"})
    text = commands(result, Place(*SERVER), None)
    assert '# speckv.json: {"speckv": {}}' in text and "--speculative-algorithm EAGLE3" in text
    assert "--speculative-adaptive --speculative-adaptive-config speckv.json" in text and "model-path HEAD" in text
    fixed = commands(result, Place(*SERVER), 2)
    assert "--speculative-algorithm EAGLE3 --speculative-num-steps 2" in fixed and "adaptive" not in fixed


def test_a_fixed_gamma_that_pays_where_speckv_does_not(tmp_path: Path) -> None:
    assert choice(reading(tmp_path, {HERE: LOSES | {"fixed-2": 1.2}}), Place(*HERE))[0] == 2


def test_plain_where_speculation_does_not_pay_and_why(tmp_path: Path) -> None:
    result = reading(tmp_path, {HERE: LOSES, SERVER: LOSES})
    assert choice(result, Place(*HERE))[0] == 0
    text = said(result)
    assert text.count("Speculation does not pay here: ") == 2 and "without assistant_model" in text
    assert "a draft token takes 0.20 of a plain step" in text
    assert "a round of fixed-2 brought" in text and "--speculative" not in text


def test_a_dear_draft_is_the_reason(tmp_path: Path) -> None:
    costs = {"bf16": {"draft_ms": 95.0, "verify_ms": {"1": 100.0, "9": 180.0}}}
    text = said(reading(tmp_path, {HERE: LOSES}, costs=costs))
    assert "a draft token takes 0.95 of a plain step" in text and "would bring 0.98 at most" in text


def test_what_is_not_shown_is_said_to_be_so(tmp_path: Path) -> None:
    result = reading(tmp_path, {HERE: LEVEL}, noise=0.3)
    gamma, text = choice(result, Place(*HERE))
    assert gamma == 0 and "It is not shown that speculation pays here" in text and "interval includes 1" in text
    assert "To settle it measure more prompts (--count " in text or "More prompts than is sensible" in text
    assert "only 3, so the interval itself is uncertain" in said(reading(tmp_path, {HERE: PAYS}, prompts=3))


@pytest.mark.parametrize(
    ("speedup", "prompts", "advice"),
    [
        (1.06, 6, r"measure more prompts \(--count \d\d\);"),
        (1.03, 12, r"measure more prompts \(--count \d\d\d --prompts FILE, with as many of your own\);"),
    ],
)
def test_more_prompts_than_there_are_are_ones_own(tmp_path: Path, speedup: float, prompts: int, advice: str) -> None:
    result = reading(tmp_path, {HERE: LEVEL | {"speckv": speedup}}, noise=0.3, prompts=prompts)
    assert re.search(advice, choice(result, Place(*HERE))[1])


def test_a_lead_without_drafting_is_not_speculations(tmp_path: Path) -> None:
    made = bench_result({HERE: PAYS})
    for row in made["rows"]:
        if row["policy"] == "speckv":
            row |= {"mean_gamma": 0.0, "drafted": 0, "accepted": 0, "wasted": 0}
    result = read(save(made, tmp_path / "r.json"))
    gamma, text = choice(result, Place(*HERE))
    assert gamma == 0 and "not speculation's doing" in text
    assert "drafted next to nothing, so its lead on plain decoding is not speculation's" in details(result)[0]


def test_transformers_default_where_it_is_faster(tmp_path: Path) -> None:
    text = said(reading(tmp_path, {HERE: PAYS | {"hf-default": 1.8}}))
    assert "Against transformers' own default" in text and "that was faster" in text


def test_sglangs_own_choice_where_it_is_faster(tmp_path: Path) -> None:
    text = said(reading(tmp_path, {HERE: PAYS | {"sglang-adaptive": 1.8}}))
    assert "Against SGLang's own --speculative-adaptive" in text and "that was faster" in text
    assert "was faster" not in said(reading(tmp_path, {HERE: PAYS | {"sglang-adaptive": 1.1}}))


@pytest.mark.parametrize(
    ("regime", "temperature", "reason"),
    [
        ("bf16", 0.0, "near-tie"),
        ("int8", 0.0, "outlier columns"),
        ("fp32", 0.0, "report this"),
        ("bf16", 1.0, "expected when sampling"),
    ],
)
def test_other_outputs_are_explained(regime: str, temperature: float, reason: str, tmp_path: Path) -> None:
    settings = {"pair": "default", "temperature": temperature}
    text = said(reading(tmp_path, {("transformers", regime, 1): PAYS}, settings=settings))
    assert "11 of 12 are the same as plain decoding's" in text and reason in text


def test_bad_predictions_and_costs_name_their_commands(tmp_path: Path) -> None:
    text = said(reading(tmp_path, {HERE: PAYS}, hopeful=0.3))
    assert "speckv profile records.parquet --pair TARGET/a,DRAFT/b --compressions bf16 --draft-compression bf16" in text
    assert "speckv train records.parquet" in text and "speckv calibrate" not in text
    costs = {"bf16": {"draft_ms": 60.0, "verify_ms": {"1": 100.0, "9": 180.0}}}
    assert "speckv calibrate --pair TARGET/a,DRAFT/b --compression bf16" in said(
        reading(tmp_path, {HERE: PAYS}, costs=costs)
    )
    assert "speckv train" not in said(reading(tmp_path, {HERE: PAYS}, prompts=40))


def test_what_siblings_bring_is_said(tmp_path: Path) -> None:
    for chain, siblings in ((1.3, ""), (1.6, " attach(…, siblings=False) drafts without.")):
        text = said(reading(tmp_path, {HERE: {**PAYS, "speckv-chain": chain}}))
        assert re.search(
            rf"Siblings: \d+ tokens .* were right; without them .*with them [\d.]+{re.escape(siblings)}\n", text
        )


def test_a_concurrency_that_loses_is_said(tmp_path: Path) -> None:
    text = said(read(save(both_frameworks(), tmp_path / "r.json")))
    assert "sglang, bf16: speckv loses with 8 requests at a time and pays at 1." in text
    assert "Not measured: sglang, all: " in text


def test_names_cannot_steer_a_shell_or_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"pair": "a; rm -rf x,$(reboot)\x1b[2J", "temperature": 0}
    result = bench_result({SERVER: PAYS, HERE: PAYS}, settings=settings, hopeful=0.3)
    monkeypatch.setattr(sys, "argv", ["speckv", "recommend", str(save(result, tmp_path / "r.json"))])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out = capsys.readouterr().out
    assert not ended.value.code and "\x1b" not in out
    launch = out[out.index("python -m sglang") :].replace("\\\n", "").splitlines()[0]
    assert shlex.split(launch)[4] == "a; rm -rf x" and shlex.split(launch)[-1].startswith("$(reboot)")
    assert not set(";$") & set(launch.replace("'a; rm -rf x'", "").replace("'$(reboot)?[2J'", ""))


def test_without_speckv_it_says_what_to_measure(tmp_path: Path) -> None:
    assert "run speckv bench with --policy plain" in said(reading(tmp_path, {HERE: {"plain": 1.0, "fixed-4": 1.1}}))

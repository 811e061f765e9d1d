"""`speckv bench`: what is compared with what, and that an interrupted run loses nothing that was measured."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speckv.benchmarks.bench import run as bench_run
from speckv.benchmarks.bench.bound import shortened
from speckv.benchmarks.bench.plan import Entry, Plan, Unit, balanced
from speckv.benchmarks.bench.rows import agreement, judge, means
from speckv.benchmarks.bench.run import run
from speckv.benchmarks.collect.traces import Trace
from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.prompts import Prompt
from speckv.benchmarks.report.reading import read
from speckv.controller.errors import SpecKVError

PROMPTS = tuple(Prompt(f"{task}-{number}", task, "Say it.") for number in range(3) for task in ("code", "chat"))


def entry(policy: str, prompt: Prompt, ms: float, tokens: int = 4, **more: Any) -> Entry:
    made: Entry = {"framework": "transformers", "regime": "bf16", "policy": policy, "concurrency": 1, "repeat": 0}
    made |= {"prompt_id": prompt.id, "task": prompt.task, "tokens": tokens, "ms": ms, "output": list(range(tokens))}
    made |= {"arrivals_ms": [ms * (i + 1) / tokens for i in range(tokens)], "rounds": 2, "drafted": 4, "accepted": 2}
    return made | {"gammas": [2, 2], "steps": []} | more


def test_ratios_are_of_sums_and_outputs_are_counted() -> None:
    entries = [entry("plain", prompt, 100.0) for prompt in PROMPTS]
    entries += [entry("fixed-2", prompt, 80.0) for prompt in PROMPTS]
    entries += [entry("speckv", prompt, 40.0 if prompt.task == "code" else 120.0) for prompt in PROMPTS]
    entries[-1]["output"] = [9, 9, 9, 9]
    found = {(row["policy"], row["task"]): row for row in judge(entries)}
    assert found["speckv", "all"]["tokens_per_s"] == pytest.approx(1e3 * 24 / 480)
    assert found["speckv", "all"]["vs_plain"] == pytest.approx(600 / 480)
    assert found["speckv", "all"]["best_fixed"] == "fixed-2"
    assert found["speckv", "all"]["vs_best_fixed"] == pytest.approx(480 / 480)
    assert found["speckv", "code"]["vs_plain"] == pytest.approx(2.5)
    low, high = found["speckv", "all"]["ci"]["vs_plain"]
    assert low < 600 / 480 < high
    assert found["speckv", "all"]["vs_hf_default"] is None
    assert (found["speckv", "all"]["identical"], found["speckv", "all"]["runs"]) == (5, 6)
    assert found["speckv", "all"]["wasted"] == 12
    assert found["plain", "all"]["itl_p50_ms"] == pytest.approx(25.0)


def test_repetitions_are_pooled_and_places_kept_apart() -> None:
    entries = [entry("plain", prompt, 100.0, repeat=repeat) for prompt in PROMPTS for repeat in (0, 1)]
    entries += [entry("plain", prompt, 50.0, framework="sglang", concurrency=4) for prompt in PROMPTS]
    found = [row for row in judge(entries) if row["task"] == "all"]
    assert [(row["framework"], row["concurrency"], row["runs"]) for row in found] == [
        ("transformers", 1, 12),
        ("sglang", 4, 6),
    ]


def test_the_mean_is_geometric_and_of_our_ratios() -> None:
    entries = []
    for regime, ms in (("bf16", 50.0), ("nf4", 200.0), ("nf4-draft4", 1.0)):
        entries += [entry("plain", prompt, 100.0, regime=regime) for prompt in PROMPTS]
        entries += [entry("speckv", prompt, ms, regime=regime) for prompt in PROMPTS]
    (mean,) = means(judge(entries))
    assert mean["vs_plain"] == pytest.approx(1.0) and "vs_sglang_adaptive" not in mean


def test_sglangs_own_adaptive_mode_is_compared_with() -> None:
    entries = []
    for size, ms in ((1, 50.0), (4, 200.0)):
        for policy, took in (("plain", 100.0), ("sglang-adaptive", 100.0), ("speckv", ms)):
            entries += [entry(policy, prompt, took, concurrency=size) for prompt in PROMPTS]
    (mean,) = means(judge(entries), entries)
    assert mean["vs_sglang_adaptive"] == pytest.approx(1.0)
    assert mean["ci"] == {key: pytest.approx([1.0, 1.0]) for key in ("vs_plain", "vs_sglang_adaptive")}
    (mean,) = means(judge(entries[: len(entries) // 2]))
    assert mean["vs_sglang_adaptive"] == pytest.approx(2.0)


def test_frameworks_are_compared_up_to_the_first_difference() -> None:
    entries = [entry("plain", prompt, 100.0) for prompt in PROMPTS]
    entries += [entry("plain", prompt, 100.0, framework="sglang") for prompt in PROMPTS]
    entries[-1]["output"] = [0, 1, 7, 7]
    (row,) = agreement(entries)
    assert (row["identical"], row["prompts"], row["tokens_alike"], row["tokens"]) == (5, 6, 22, 24)


class Interrupted:
    """A framework whose measuring is interrupted after some units, as by Ctrl-C."""

    def __init__(self, after: int) -> None:
        self.after, self.measured = after, 0

    def __call__(self, plan: Plan, done: Collection[str], report: Report) -> Iterator[Unit]:
        for prompt in plan.prompts:
            if prompt.id in done:
                continue
            if self.measured == self.after:
                raise KeyboardInterrupt
            self.measured += 1
            yield Unit(prompt.id, [entry(policy, prompt, 50.0) for policy in plan.policies], {"costs": {"bf16": {}}})


def plan(**changed: Any) -> Plan:
    return replace(Plan(PROMPTS, policies=("plain", "speckv")), **changed)


def test_what_was_measured_before_an_interruption_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results.json"
    total = 0
    for after in (2, 3):
        stopped = Interrupted(after)
        monkeypatch.setitem(bench_run.FRAMEWORKS, "transformers", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(plan(), out, "a test", lambda *_: None)
        assert not out.exists()
        total += stopped.measured
    with (tmp_path / "results.partial.jsonl").open("a") as journal:
        journal.write('{"key": "cut in the mid')
    last = Interrupted(100)
    monkeypatch.setitem(bench_run.FRAMEWORKS, "transformers", last)
    result = run(plan(), out, "a test", lambda *_: None)
    assert total + last.measured == len(PROMPTS)
    assert len(result["entries"]) == 2 * len(PROMPTS)
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(json.dumps(result))


def test_other_settings_are_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.json"
    for tokens, expected in ((64, len(PROMPTS)), (64, 0), (32, len(PROMPTS)), (64, 0)):
        counted = Interrupted(100)
        monkeypatch.setitem(bench_run.FRAMEWORKS, "transformers", counted)
        run(plan(tokens=tokens), out, "a test", lambda *_: None)
        assert counted.measured == expected


def test_rows_are_in_the_order_asked_for_whatever_was_measured_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(plan: Plan, done: Collection[str], report: Report) -> Iterator[Unit]:
        for regime in plan.regimes:
            if regime not in done:
                yield Unit(
                    regime, [entry(of, prompt, 50.0, regime=regime) for prompt in PROMPTS for of in plan.policies]
                )

    monkeypatch.setitem(bench_run.FRAMEWORKS, "transformers", measure)
    for regimes in (("nf4",), ("bf16", "nf4")):
        result = run(plan(regimes=regimes), tmp_path / "results.json", "a test", lambda *_: None)
        assert tuple(dict.fromkeys(row["regime"] for row in result["rows"])) == regimes


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"frameworks": ("vllm",)}, "framework vllm: known are transformers, sglang"),
        ({"regimes": ("int4",)}, "compression int4: known are bf16"),
        ({"policies": ("plain", "fixed-x")}, "policy fixed-x: known are plain"),
        ({"policies": ("speckv",)}, "plain is missing"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"concurrencies": (0,)}, "concurrency 0"),
        ({"batches": (1, 99)}, "batch 99: there are only"),
        ({"prompts": (*PROMPTS, PROMPTS[0])}, "prompt code-0 is there twice"),
    ],
)
def test_what_cannot_be_measured_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecKVError, match=said):
        run(plan(**changed), None, "a test", lambda *_: None)


def test_tasks_take_turns() -> None:
    prompts = [Prompt(f"{task}{i}", task, "x") for task, count in (("own", 2), ("code", 3)) for i in range(count)]
    assert [prompt.id for prompt in balanced(prompts, 0)] == ["code0", "own0", "code1", "own1", "code2"]
    with pytest.raises(SpecKVError, match="6 prompts are asked for, and there are 5; give fewer"):
        balanced(prompts, 6)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": "speckv bench", "version": 99}', "\x00"])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SpecKVError, match=r"results\.json: "):
        read(path)


def test_a_shortened_trace_runs_no_further_than_its_text() -> None:
    count, depth = 6, 4
    matches, lengths = np.array([4, 3, 2, 0, 1, 0]), np.array([4, 4, 4, 4, 2, 1])
    signals = np.ones((count, depth, 4), dtype=np.float32)
    short = shortened(Trace("a", "code", 3, matches, lengths, np.zeros(count, int), signals[..., 0], signals), 3)
    assert short.tokens == 3
    assert short.matches.tolist() == [3, 2, 1]
    assert short.lengths.tolist() == [3, 2, 1]

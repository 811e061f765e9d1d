"""Calibrated costs: the file a person may edit, and what is refused of it; a real calibration of a tiny pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speckv.controller.calibration import read_costs, write_costs
from speckv.controller.curve import LEAST_MS, Costs
from speckv.controller.errors import SpecKVError

COSTS = Costs(
    {1: 10.5, 2: 11.0}, {1: 100.0, 3: 104.0, 9: 160.0}, 1.5, 20.0, {4: Costs({4: 12.0}, {4: 140.0, 8: 150.0})}
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_costs(COSTS, {"pair": "x"}, tmp_path / "c.json")
    assert read_costs(tmp_path / "c.json") == (COSTS, {"pair": "x"})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 1}, "not costs of version 2"),
        ({"extra": 1}, "extra missing or unknown"),
        ({"draft_ms": {"2": 1.0}}, "draft_ms does not say what 1 row takes"),
        ({"verify_ms": {"1": 0}}, "verify_ms of 1 requests: 0 for 1 rows is no time above 0"),
        ({"verify_ms": {"1": 1.0, "x": 2.0}}, "verify_ms of 1 requests: 'x' is no number of rows"),
        ({"verify_ms_per_1000_context": -1}, "verify_ms_per_1000_context: -1 is no time of 0 or more"),
        ({"about": 3}, "about is no object"),
        ({"batches": []}, "batches is no object"),
        (
            {"draft_ms": {"1": "x"}, "batches": {"1": {"draft_ms": {}, "verify_ms": {}}}},
            "batches: '1' is no number of requests with draft_ms and verify_ms",
        ),
        (
            {"batches": {"9" * 5000: {}}},
            f"batches: '{'9' * 5000}' is no number of requests with draft_ms and verify_ms",
        ),
        ({"batches": {"x": {}}}, "batches: 'x' is no number of requests with draft_ms and verify_ms"),
        ({"batches": {"4": {"draft_ms": {}}}}, "batches: '4' is no number of requests with draft_ms and verify_ms"),
        ({"batches": {"4": {"draft_ms": {}, "verify_ms": 3}}}, "verify_ms of 4 requests: no object"),
        (
            {"batches": {"4": {"draft_ms": {"4": -1}, "verify_ms": {}}}},
            "draft_ms of 4 requests: -1 for 4 rows is no time above 0",
        ),
    ],
)
def test_an_edit_that_makes_no_sense_is_named(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    path = tmp_path / "c.json"
    write_costs(COSTS, {}, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SpecKVError) as refusal:
        read_costs(path)
    assert f"c.json: {why}; correct it, or make it again with speckv calibrate" in str(refusal.value)


@pytest.mark.parametrize("text", [None, "{", "[1]"])
def test_no_costs_file(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "c.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecKVError, match=r"c\.json: .*speckv calibrate"):
        read_costs(path)


def test_a_real_pair_is_timed_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers_helpers import tiny

    from speckv.integrations.cost_store import costs_path, remember, remembered
    from speckv.integrations.transformers.calibrate import about, calibrate

    monkeypatch.setenv("SPECKV_CACHE", str(tmp_path))
    target, draft = tiny(seed=0), tiny(seed=1)
    this = about(target, draft)
    assert remembered(this) is None
    costs = calibrate(target, draft, repeats=1)
    assert set(costs.verify) == {1, 2, 3, 4, 5, 7, 9, 13, 21} and min(costs.verify.values()) > 0
    assert set(costs.draft) == {1, 2, 64} and list(costs.batches) == [4, 8]
    for size, of in costs.batches.items():
        assert list(of.draft) == [size] and list(of.verify) == [size, 2 * size, 4 * size]
        assert min(of.draft[size], *of.verify.values()) > 0
    assert remember(this, costs) == costs_path(this)
    found = remembered(this)
    assert found is not None and found.verify[1] == pytest.approx(costs.verify[1], abs=1e-4)
    assert costs_path(about(draft, target)) == costs_path(this)  # alike in all that costs depend on
    costs_path(this).write_text("{}")
    with pytest.raises(SpecKVError, match="not costs of version 2"):
        remembered(this)


@pytest.mark.parametrize(("positions", "rows"), [(70, 21), (40, 13), (8, 4), (2, 1)])
def test_models_with_few_positions_are_timed_as_far_as_they_go(positions: int, rows: int) -> None:
    from transformers_helpers import tiny

    from speckv.integrations.transformers.calibrate import calibrate

    short, enough = (tiny(seed=seed) for seed in (0, 1))
    short.config.max_position_embeddings = positions
    found = calibrate(short, enough, repeats=1)
    assert max(found.verify) == rows and max(found.batches[8].verify) == 8 * min(rows, 4)
    if positions == 2:
        short.config.max_position_embeddings = 1
        with pytest.raises(SpecKVError, match="1 positions are too few to time anything"):
            calibrate(enough, short, repeats=1)


def test_noise_that_makes_context_dear_leaves_a_forward_its_time() -> None:
    """64 tokens of context cannot take longer than the whole forward that had them."""
    from speckv.integrations.transformers.calibrate import LONG, SHORT, _slope

    found = {("draft", 1, SHORT, 1): 1.0, ("draft", 1, SHORT, 2): 0.8, ("draft", 1, LONG, 1): 500.0}
    assert 1.0 - _slope(found, "draft") * SHORT / 1e3 >= 0.5
    assert _slope({**found, ("draft", 1, LONG, 1): 0.5}, "draft") == 0.0


def test_nor_does_it_take_a_batch_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 8 sequences has a context that half of one's forward may be: what is left is no time below 0."""
    from transformers_helpers import tiny

    from speckv.integrations.transformers.calibrate import calibrate

    monkeypatch.setitem(calibrate.__globals__, "_slope", lambda *_: 1e6)
    costs = calibrate(tiny(seed=0), tiny(seed=1), repeats=1)
    assert all(ms > 0.01 for of in costs.batches.values() for table in (of.draft, of.verify) for ms in table.values())
    write_costs(costs, {}, tmp_path / "c.json")
    read_costs(tmp_path / "c.json")


def test_the_least_time_is_one_in_a_file_too(tmp_path: Path) -> None:
    write_costs(Costs({1: LEAST_MS}, {1: LEAST_MS}), {}, tmp_path / "c.json")
    assert read_costs(tmp_path / "c.json")[0].verify == {1: LEAST_MS}

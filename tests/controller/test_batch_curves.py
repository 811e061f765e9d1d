"""Times by requests and rows: each batch size keeps its own, and begins with what the others know."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import timed

from speckv.controller.batch_curves import BatchCurves, alike
from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs

ONE = {1: 100.0, 5: 120.0, 9: 140.0}


def settle(curves: BatchCurves, times: dict[tuple[int, int], float]) -> None:
    for number in range(4):
        for (size, rows), ms in times.items():
            curves.learn(size, rows, ms, number + 1)


def test_sizes_above_eight_are_learnt_about_together() -> None:
    assert [alike(size) for size in (1, 3, 8, 9, 16, 17, 33)] == [1, 3, 8, 16, 16, 32, 64]


def test_what_is_given_is_found_and_sizes_between_are_in_proportion() -> None:
    curves = BatchCurves({1: ONE, 4: {4: 150.0, 8: 160.0}})
    assert [curves.of(1).time(rows) for rows in (1, 3, 9)] == [100, 110, 140]
    assert [curves.of(4).time(rows) for rows in (4, 6, 8)] == pytest.approx([150, 155, 160], rel=0.01)
    assert curves.of(2).time(5) == pytest.approx(120 + (152.5 - 120) / 3, rel=0.01)
    assert curves.of(8).time(8) == pytest.approx(160) and not curves.timed and not curves.has(4, 4)


def test_a_size_given_with_one_time_grows_as_the_others_do() -> None:
    """At a server's start there may be time for a plain round of many requests and for no other."""
    curves = BatchCurves({1: ONE, 4: {4: 230.0}})
    assert curves.of(4).time(4) == pytest.approx(230)
    assert curves.of(4).time(9) == pytest.approx(280)


def test_what_one_size_has_learnt_says_nothing_of_another_that_was_timed() -> None:
    """Measured in a server: 16 rows of 4 requests take 102 ms, 8 rows of 8 take 122."""
    curves = BatchCurves({1: {1: 60.0, 21: 100.0}})
    settle(curves, {(4, 4): 75.0, (4, 16): 102.0, (8, 8): 122.0, (8, 16): 130.0})
    assert curves.of(4).time(4) == pytest.approx(75, rel=0.01) and curves.of(4).time(16) == pytest.approx(102, rel=0.01)
    assert curves.of(8).time(8) == pytest.approx(122, rel=0.01) and curves.of(8).time(16) == pytest.approx(
        130, rel=0.01
    )
    assert curves.has(4, 16) and not curves.has(4, 8) and not curves.has(2, 4)


def test_a_size_not_timed_is_as_much_slower_than_given_as_those_beside_it() -> None:
    curves = BatchCurves({1: ONE})
    settle(curves, {(2, 5): 240.0, (8, 9): 420.0})
    assert curves.of(1).time(1) == pytest.approx(200) == curves.of(2).time(1)
    assert curves.of(16).time(9) == pytest.approx(420)
    assert curves.of(5).time(9) == pytest.approx((280 + 420) / 2)
    assert curves.factor(5, 9) == pytest.approx(2.5)


def test_it_begins_there_and_goes_on_with_its_own() -> None:
    curves = BatchCurves({1: ONE})
    settle(curves, {(1, 1): 200.0, (1, 9): 320.0})
    settle(curves, {(2, 2): 210.0})
    assert curves.of(2).time(2) == pytest.approx(210, rel=0.02)
    assert curves.of(2).time(9) == pytest.approx(320 * 210 / curves.of(1).time(2), rel=0.02)
    assert curves.of(1).time(9) == pytest.approx(320, rel=0.02)


def test_a_busy_machine_is_busy_for_all_sizes() -> None:
    curves = BatchCurves({1: ONE, 4: {4: 130.0}})
    settle(curves, {(1, 1): 100.0, (4, 4): 130.0, (4, 9): 150.0})
    for number in range(60):
        curves.learn(4, 4, 260.0, 10 + number)
    assert curves.of(1).time(1) == pytest.approx(200, rel=0.15) and curves.of(4).time(9) == pytest.approx(300, rel=0.15)
    assert curves.of(2).time(1) == pytest.approx(200, rel=0.3)


def test_more_rows_than_another_size_knows_are_tried() -> None:
    """Rows are free, and guessed to cost: what is timed reaches twice as far, from whatever size it is begun."""
    curves = BatchCurves({1: {1: 100.0, 2: 103.0}})
    for size in (1, 2):
        for most in (4, 8, 16, 32, 64, 128):
            curves.learn(size, most, 100.0, most)
        assert curves.of(size).time(256) < 103 < 110 < curves.of(size).time(512)


MS = st.floats(1.0, 1000.0)


@given(
    given=st.dictionaries(st.integers(2, 40), st.dictionaries(st.integers(1, 99), MS, max_size=3), max_size=4),
    learnt=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 4), MS), max_size=20),
)
def test_times_are_times(given: dict[int, dict[int, float]], learnt: list[tuple[int, int, float]]) -> None:
    curves = BatchCurves({1: ONE, **given})
    for number, (size, levels, ms) in enumerate(learnt):
        curves.learn(size, size * levels, ms, number)
        assert curves.has(size, size * levels)
    for size in range(1, 70):
        times = curves.of(size).times(np.arange(1, 400))
        assert np.isfinite(times).all() and (times > 0).all() and (np.diff(times[1:]) >= -1e-9 * times[1:-1]).all()
    assert curves.timed == bool(learnt)


def test_what_a_model_has_learnt_is_what_another_begins_with() -> None:
    costs = Costs({1: 10.0}, {1: 100.0, 9: 140.0}, batches={2: Costs({2: 11.0}, {2: 104.0})})
    cost = CostModel(costs, extends=True)
    for _ in range(5):
        cost.observe(timed(2, 25.0, 150.0, size=4, extend_ms=30.0))
        cost.observe(timed(0, None, 120.0, size=4, extend_ms=0.0))
        cost.observe(timed(0, None, 101.0, extend_ms=0.0))
    learnt = cost.learnt()
    assert learnt.verify == pytest.approx({1: 101.0, 9: 140.0}, rel=0.05) and learnt.batches[2] == costs.batches[2]
    assert learnt.batches[4].verify == pytest.approx({4: 120.0, 12: 150.0}, rel=0.02)
    assert learnt.batches[4].draft == pytest.approx({4: 25.0, 12: 30.0}, rel=0.02)
    again = CostModel(learnt, extends=True)
    for levels in (0, 2):
        outcome = timed(levels, None, None, size=4)
        assert again.round_ms(outcome) == pytest.approx(cost.round_ms(outcome), rel=0.02)
    assert again.first_ms(4) == pytest.approx(cost.first_ms(4), rel=0.1)

"""The cost model: guessed from sizes, then from the loop's timings, whatever a noisy machine does to them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv.controller.cost import BYTES_PER_MS, ROW_SHARE, WINDOW, CostModel, Costs
from speckv.controller.policy import Round


def timed(drafted: int, draft_ms: float, verify_ms: float, **more: bool) -> Round:
    """A finished round; ``draft_ms`` is that of the whole round."""
    return Round(0, [0.1] * drafted, [0.9] * drafted, draft_ms=draft_ms, verify_ms=verify_ms, **more)


def test_before_any_timing_the_sizes_say() -> None:
    cost = CostModel(Costs.from_sizes(target_bytes=3.0e9, draft_bytes=1.0e9))
    assert cost.verify_ms(1) == pytest.approx(3.0e9 / BYTES_PER_MS) == pytest.approx(200)
    assert cost.draft_ms == pytest.approx(1.0e9 / BYTES_PER_MS)
    assert cost.verify_ms(5) == pytest.approx(200 * (1 + 4 * ROW_SHARE))
    assert cost.step_ms(4) == pytest.approx(4 * cost.draft_ms + cost.verify_ms(5))
    assert cost.step_ms(0) == cost.verify_ms(1)


def test_the_first_verify_scales_the_guess_of_a_draft() -> None:
    cost = CostModel(Costs.linear(50, 100))
    cost.observe(timed(0, 0, 300))
    assert cost.draft_ms == pytest.approx(150)
    assert cost.verify_ms(3) == pytest.approx(300 * (1 + 2 * ROW_SHARE))
    cost.observe(timed(2, 40, 318))
    assert cost.draft_ms == 20


def test_a_table_computed_by_hand() -> None:
    cost = CostModel(Costs.linear(1, 100, 10))  # guesses 100, 110, 120, 130, 140, ...
    for draft, verify in ((30, 220), (36, 240), (33, 260)):  # 3 rows: median 240, twice the guess
        cost.observe(timed(2, draft, verify))
    cost.observe(timed(4, 80, 420))  # 5 rows: 420, three times the guess
    assert cost.draft_ms == pytest.approx((16.5 + 18) / 2)  # of 15, 18, 16.5 and 20 a token
    table = [cost.verify_ms(rows) for rows in range(1, 8)]
    assert table == pytest.approx([200, 220, 240, 330, 420, 3 * 150, 3 * 160])
    assert cost.step_times([0, 2, 4]) == pytest.approx([200, 2 * 17.25 + 240, 4 * 17.25 + 420])


def test_a_step_between_row_counts_is_kept() -> None:
    cost = CostModel(Costs.linear(1, 100))
    for rows, verify in ((1, 100), (2, 100), (3, 100), (4, 200), (5, 200), (6, 200)):
        cost.observe(timed(rows - 1, rows - 1, verify))
    assert [cost.verify_ms(rows) for rows in range(1, 7)] == pytest.approx([100, 100, 100, 200, 200, 200])


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.1, 500), st.floats(0.1, 5000)), max_size=40))
def test_more_rows_never_cost_less(rounds: list[tuple[int, float, float]]) -> None:
    cost = CostModel(Costs.linear(10, 100))
    for drafted, draft, verify in rounds:
        cost.observe(timed(drafted, drafted * draft, verify))
    table = [cost.verify_ms(rows) for rows in range(1, 13)]
    assert table == sorted(table) and table[0] > 0
    steps = cost.step_times(range(12))
    assert steps == sorted(steps) == [cost.step_ms(gamma) for gamma in range(12)]


@pytest.mark.parametrize("factor", [0.05, 20.0])
def test_two_outliers_in_five_change_little(factor: float) -> None:
    draws = random.Random(1)
    cost = CostModel(Costs.linear(1, 1))
    for number in range(WINDOW):
        wrong = factor if number % 5 in (0, 3) else 1.0
        cost.observe(timed(3, 60 * wrong * draws.uniform(0.99, 1.01), 90 * wrong * draws.uniform(0.99, 1.01)))
    assert cost.draft_ms == pytest.approx(20, rel=0.01)
    assert cost.verify_ms(4) == pytest.approx(90, rel=0.02)


def test_a_prefill_is_no_step() -> None:
    cost = CostModel(Costs.linear(10, 100))
    cost.observe(timed(2, 900, 5000, draft_prefill=True, verify_prefill=True))
    assert (cost.draft_ms, cost.verify_ms(1)) == (10, 100)
    cost.observe(timed(2, 900, 106, draft_prefill=True))
    assert cost.verify_ms(3) == pytest.approx(106)
    cost.observe(timed(2, 30, 5000, verify_prefill=True))
    assert (cost.draft_ms, cost.verify_ms(3)) == (15, pytest.approx(106))


def test_rounds_without_a_draft_time_no_draft() -> None:
    cost = CostModel(Costs.linear(10, 100))
    cost.observe(timed(3, 60, 109))
    for _ in range(WINDOW):
        cost.observe(timed(0, 0, 100))
    assert cost.draft_ms == 20


def test_three_times_slower_is_believed_within_a_window() -> None:
    cost = CostModel(Costs.linear(10, 100))
    for _ in range(5 * WINDOW):
        cost.observe(timed(4, 40, 112))
    for _ in range(WINDOW):
        cost.observe(timed(4, 120, 336))
    assert cost.draft_ms == pytest.approx(30, rel=0.01)
    assert [cost.verify_ms(rows) for rows in (1, 5, 9)] == pytest.approx([300, 336, 372], rel=0.01)


def test_what_was_timed_on_a_busy_machine_gets_cheap_again_with_the_rest() -> None:
    """Drafting was timed while all took twice as long; then there is only plain decoding, at the usual speed."""
    cost = CostModel(Costs.linear(40, 100, 20))
    for _ in range(6):
        cost.observe(timed(0, 0, 100))
        cost.observe(timed(1, 40, 120))
    for _ in range(2 * WINDOW):
        cost.observe(timed(1, 80, 240))
    assert cost.step_ms(1) == pytest.approx(320, rel=0.02)
    for _ in range(WINDOW):
        cost.observe(timed(0, 0, 100))
    assert cost.verify_ms(1) == pytest.approx(100, rel=0.02)
    assert cost.verify_ms(2) == pytest.approx(120, rel=0.15)
    assert cost.draft_ms == pytest.approx(40, rel=0.15)

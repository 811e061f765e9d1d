"""What a round over a batch costs: the draft's closing forward, what one size says of another, reading."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv.controller.batch_cost import BatchCost, ReadingCost
from speckv.controller.cost import Costs
from speckv.controller.policies.batch import BatchRound

GAMMAS = tuple(range(9))


def played(cost: BatchCost, size: int, gamma: int, times: int = 30, active: bool = True) -> None:
    """Rounds in which a draft forward takes 10 ms, an extend 12 + rows, a verify 40 + 2 · rows."""
    rows = size * (gamma + 1)
    for _ in range(times):
        cost.observe(
            BatchRound(
                size,
                drafted=gamma,
                active=active,
                draft_ms=10.0 * max(0, gamma - 1),
                verify_ms=40.0 + 2 * rows,
                extend_ms=12.0 + rows if active else 0.0,
            )
        )


def known(size: int) -> BatchCost:
    cost = BatchCost.guess(size, Costs.linear(5.0, 50.0))
    for gamma in (0, 1, 2, 4, 8):
        played(cost, size, gamma)
    return cost


def test_a_first_token_costs_its_rows_and_a_further_one_a_forward() -> None:
    times = known(2).times(GAMMAS)
    # γ = 0: verify 2 rows + extend 2 rows; γ = 1: 4 rows each; from γ = 2 a draft forward and 6 ms of rows each
    assert times[:2] == pytest.approx([44 + 14, 48 + 16])
    assert [after - before for before, after in pairwise(times[1:])] == pytest.approx([16.0] * 7)


def test_resting_spares_all_of_the_draft() -> None:
    cost = known(2)
    played(cost, 2, 0, active=False)
    assert cost.rest_ms == pytest.approx(44.0)
    assert cost.round_ms(BatchRound(2, active=False)) == cost.rest_ms
    assert cost.round_ms(BatchRound(2, drafted=2)) == pytest.approx(cost.times((2,))[0])


def test_another_size_starts_from_what_rows_cost_here() -> None:
    other = known(1).like(2, 8)
    assert other.rest_ms == pytest.approx(44.0)
    assert other.times((1, 3)) == pytest.approx([48 + 16, 56 + 20 + 2 * 10], rel=0.05)


def test_reading_is_guessed_by_rows_and_timed() -> None:
    reading = ReadingCost(Costs.linear(5.0, 50.0))
    assert reading.ms(0) == 0.0 and 5.0 < reading.ms(100) < reading.ms(300)
    for _ in range(30):
        reading.observe(100, 70.0)
    assert reading.ms(100) == reading.ms(128) == pytest.approx(70.0)
    assert reading.ms(40) < 71.0 < reading.ms(1000)


@given(st.integers(1, 64), st.floats(0.1, 50.0), st.floats(1.0, 500.0))
def test_a_guess_grows_with_gamma_and_is_never_below_resting(size: int, draft: float, verify: float) -> None:
    cost = BatchCost.guess(size, Costs.linear(draft, verify))
    times = cost.times(GAMMAS)
    assert times == sorted(times) and times[0] > cost.rest_ms > 0
    assert all(more >= less for more, less in zip(cost.like(2 * size, 8).times(GAMMAS), times, strict=True))

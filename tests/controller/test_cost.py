"""The cost model: both shapes of a round, guessed, then from the loop's timings, whatever a noisy machine does."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import timed

from speckv.controller.cost import SETTLED, CostModel
from speckv.controller.curve import BYTES_PER_MS, ROW_SHARE, WINDOW, Costs, Curve
from speckv.controller.policy import SIBLINGS

MS = st.floats(0.1, 5000)


def verify_ms(cost: CostModel, rows: int) -> float:
    return float(cost.tables(1, 8)[1][rows])


def draft_ms(cost: CostModel, size: int = 1) -> float:
    """A further level's."""
    drafting = cost.tables(size, 8)[0]
    return float(drafting[3] - drafting[2])


def test_before_any_timing_the_sizes_say() -> None:
    cost = CostModel(Costs.from_sizes(target_bytes=3.0e9, draft_bytes=1.0e9))
    assert cost.rest_ms(1) == pytest.approx(3.0e9 / BYTES_PER_MS) == pytest.approx(200)
    assert cost.first_ms(1) == pytest.approx(1.0e9 / BYTES_PER_MS)
    assert verify_ms(cost, 5) == pytest.approx(200 * (1 + 4 * ROW_SHARE))


class TestDraftThenVerify:
    """γ · draft(n) + verify(n · (γ + 1) + s)."""

    costs = Costs({1: 10.0, 4: 16.0}, {1: 100.0, 9: 180.0})

    def test_by_hand(self) -> None:
        cost = CostModel(self.costs)
        assert cost.rest_ms(1) == 100 and cost.rest_ms(4) == 130
        assert cost.first_ms(1) == 10 and cost.first_ms(3) == 14
        assert cost.round_ms(timed(2, None, None)) == 20 + 120
        assert cost.round_ms(timed(3, None, None, gamma=2)) == 30 + 120  # the last level was left out
        assert cost.round_ms(timed(2, None, None, siblings=4)) == 20 + 160
        assert cost.round_ms(timed(2, None, None, size=3, siblings=2)) == 28 + 200
        assert cost.round_ms(timed(0, None, None, size=3)) == 120

    def test_tables_are_the_same_in_one(self) -> None:
        cost = CostModel(self.costs)
        drafting, verify = cost.tables(3, 4)
        assert drafting.tolist() == [0, 14, 28, 42, 56]
        assert len(verify) == 3 * (1 + 4 * (1 + SIBLINGS)) + 1 and verify[3] == 120 and verify[11] == 200

    def test_context_enters(self) -> None:
        cost = CostModel(Costs({1: 10.5, 2: 11.0}, {1: 100.0, 3: 104.0, 9: 160.0}, 1.5, 20.0))
        cost.observe(timed(0, None, None, position=2000))
        assert draft_ms(cost) == pytest.approx(10.5 + 3.0)
        assert cost.rest_ms(1) == verify_ms(cost, 1) == pytest.approx(100 + 40)
        # A timing at that context is compared with what was expected there.
        cost.observe(timed(1, 13.5, 142.0, position=2000))
        assert draft_ms(cost) == pytest.approx(13.5) and verify_ms(cost, 2) == pytest.approx(142.0)
        cost.observe(timed(1, 10.5, 102.0, position=0))
        assert draft_ms(cost) == pytest.approx(10.5) and verify_ms(cost, 2) == pytest.approx(102.0)

    def test_context_is_every_requests(self) -> None:
        cost = CostModel(Costs({1: 10.0, 2: 10.0}, {1: 100.0, 2: 100.0}, 1.5, 20.0))
        cost.observe(timed(0, None, None, position=2000, size=4))
        assert cost.rest_ms(4) == pytest.approx(100 + 4 * 40)
        assert cost.first_ms(4) == pytest.approx(10 + 4 * 3)
        cost.observe(timed(0, None, 300.0, position=2000, size=4))
        assert cost.rest_ms(4) == pytest.approx(300)
        cost.observe(timed(0, None, None, position=4000, size=4))
        assert cost.rest_ms(4) == pytest.approx(300 + 4 * 40)

    def test_the_first_plain_round_counts_at_once(self) -> None:
        """All else may be looked up some rounds later."""
        cost = CostModel(self.costs)
        for _ in range(20):
            cost.observe(timed(2, 20.0, 140.0))
            cost.tables(1, 4)
        cost.observe(timed(0, None, 50.0))
        assert cost.tables(1, 4)[1][1] == cost.rest_ms(1) == pytest.approx(50.0)


class TestExtends:
    """max(0, γ − 1) · draft(n) + verify(n · (γ + 1) + s) + extend(n · (γ + 1)), and verify(n) where the draft rests."""

    @pytest.fixture
    def cost(self) -> CostModel:
        """A draft forward takes 10 ms, an extend 12 + rows, a verify 40 + 2 · rows."""
        cost = CostModel(Costs.linear(5.0, 50.0), extends=True)
        for gamma in (1, 2, 4, 8):
            for _ in range(30):
                rows = 2 * (gamma + 1)
                cost.observe(timed(gamma, 10.0 * (gamma - 1), 40.0 + 2 * rows, size=2, extend_ms=12.0 + rows))
        for _ in range(30):
            cost.observe(timed(0, None, 44.0, size=2, extend_ms=0.0))
        return cost

    def test_a_first_level_costs_its_rows_and_a_further_one_a_forward(self, cost: CostModel) -> None:
        assert cost.tables(2, 8)[0] == pytest.approx(
            [0, *(10 * (gamma - 1) + 12 + 2 * (gamma + 1) for gamma in range(1, 9))]
        )
        assert cost.first_ms(2) == pytest.approx(16)

    def test_resting_spares_all_of_the_draft(self, cost: CostModel) -> None:
        assert cost.rest_ms(2) == cost.round_ms(timed(0, None, None, size=2)) == pytest.approx(44.0)
        assert cost.round_ms(timed(2, None, None, size=2)) == pytest.approx(10 + 52 + 18)

    def test_until_it_is_timed_an_extend_is_a_draft_forward(self) -> None:
        cost = CostModel(Costs({1: 10.0, 3: 20.0}, {1: 100.0}), extends=True)
        assert cost.tables(1, 2)[0].tolist() == [0, 15, 10 + 20]


def test_the_first_verify_scales_the_guess_of_a_draft() -> None:
    cost = CostModel(Costs.linear(50, 100))
    cost.observe(timed(0, 0, 300))
    assert draft_ms(cost) == pytest.approx(150)
    assert verify_ms(cost, 3) == pytest.approx(300 * (1 + 2 * ROW_SHARE))
    cost.observe(timed(2, 40, 318))
    assert draft_ms(cost) == 20


def test_a_table_computed_by_hand() -> None:
    cost = CostModel(Costs.linear(1, 100, 10))  # guesses 100, 110, 120, 130, 140, ...
    for draft, verify in ((30, 220), (36, 240), (33, 260)):  # 3 rows: median 240, twice the guess
        cost.observe(timed(2, draft, verify))
    cost.observe(timed(4, 80, 420))  # 5 rows: 420, three times the guess, and 3 rows let expect 280
    assert draft_ms(cost) == pytest.approx(16.5)  # of 15, 18, 16.5 and 20 a token
    assert cost.tables(1, 8)[1][1:8] == pytest.approx([200, 220, 240, 260, 280, 300, 320])
    for _ in range(SETTLED):
        cost.observe(timed(4, 66, 420))
    load = cost.rest_ms(1) / 200  # all that is not timed is taken to be slower, too
    assert load < 1.5
    expected = [200 * load, 220 * load, 240 * load, (240 * load + 420) / 2, 420]
    assert cost.tables(1, 8)[1][1:6] == pytest.approx(expected, rel=0.03)


def test_siblings_are_rows_as_any() -> None:
    chain, tree = CostModel(Costs.linear(1, 100)), CostModel(Costs.linear(1, 100))
    chain.observe(timed(4, 40, 300))
    tree.observe(timed(2, 20, 300, siblings=2))
    assert (chain.tables(1, 8)[1] == tree.tables(1, 8)[1]).all()


def test_tables_follow_timings_at_once_and_later_after_a_few_rounds() -> None:
    cost = CostModel(Costs.linear(10, 100))
    for _ in range(3):
        cost.observe(timed(0, None, 50.0))
        assert verify_ms(cost, 1) == pytest.approx(50)
    for _ in range(5 * WINDOW):
        cost.observe(timed(0, None, 50.0))
        verify_ms(cost, 1)
    found = []
    for _ in range(2 * WINDOW):
        cost.observe(timed(0, None, 150.0))
        found.append(verify_ms(cost, 1))
    assert found[-1] == pytest.approx(150, rel=0.01)
    at = next(number for number, ms in enumerate(found) if ms > 140)
    assert at <= WINDOW / 2 + SETTLED


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.1, 500), MS), max_size=40))
def test_more_rows_never_cost_less(rounds: list[tuple[int, float, float]]) -> None:
    """Save that several may cost less than one."""
    cost = CostModel(Costs.linear(10, 100))
    for drafted, draft, verify in rounds:
        cost.observe(timed(drafted, drafted * draft, verify))
    drafting, verify = cost.tables(1, 12)
    assert (np.diff(verify[2:]) >= 0).all() and verify[1:3].min() > 0 and (np.diff(drafting) >= 0).all()
    for gamma in range(1, 12):
        expected = float(drafting[gamma] + verify[1 + gamma])
        assert cost.round_ms(timed(gamma, None, None)) == pytest.approx(expected)


def test_one_row_may_take_longer_than_several() -> None:
    """A bf16 target's timings on a CPU. Taken for dearer rows, the first six of a verify would all cost nothing."""
    known = {1: 268.0, 2: 228.0, 3: 229.0, 4: 245.0, 5: 254.0, 6: 265.0, 8: 282.0}
    calibrated, guessed = CostModel(Costs({1: 80.0}, known)), CostModel(Costs.linear(80, 240))
    for cost in (calibrated, guessed):
        for levels in range(8):
            for _ in range(3):
                cost.observe(timed(levels, 80.0 * levels, known.get(levels + 1, 274.0)))
        assert [verify_ms(cost, rows) for rows in known] == pytest.approx(list(known.values()), rel=0.01)


@given(
    baseline=st.dictionaries(st.integers(1, 20), MS, min_size=1, max_size=4),
    learnt=st.lists(st.tuples(st.integers(1, 30), MS), max_size=12),
)
def test_all_times_at_once_are_those_one_by_one(baseline: dict[int, float], learnt: list[tuple[int, float]]) -> None:
    curve = Curve(dict(sorted(baseline.items())))
    for number, (rows, ms) in enumerate(learnt):
        curve.learn(rows, ms, number + 1)
    rows = np.arange(60)
    assert curve.times(rows) == pytest.approx([curve.time(int(row)) for row in rows])


@pytest.mark.parametrize("factor", [0.05, 20.0])
def test_two_outliers_in_five_change_little(factor: float) -> None:
    draws = random.Random(1)
    cost = CostModel(Costs.linear(1, 1))
    for number in range(WINDOW):
        wrong = factor if number % 5 in (0, 3) else 1.0
        cost.observe(timed(3, 60 * wrong * draws.uniform(0.99, 1.01), 90 * wrong * draws.uniform(0.99, 1.01)))
    assert draft_ms(cost) == pytest.approx(20, rel=0.01)
    assert verify_ms(cost, 4) == pytest.approx(90, rel=0.02)


@pytest.mark.parametrize("calibrated", [True, False])
def test_one_slow_forward_does_not_make_its_rows_dear(calibrated: bool) -> None:
    """Real timings of an int8 target: a single one of six rows, half as slow again, kept chains at four tokens."""
    known = {1: 197.0, 2: 246.0, 3: 264.0, 4: 293.0, 5: 314.0, 7: 326.0, 9: 362.0, 13: 400.0}
    cost = CostModel(Costs({1: 102.0}, known) if calibrated else Costs.linear(100, 200))
    for levels in (0, 1, 2, 3, 4) * 4:
        cost.observe(timed(levels, 102 * levels, known[levels + 1]))
    five = timed(5, None, None)
    before = cost.round_ms(five)
    cost.observe(timed(5, 605, 618))
    assert cost.round_ms(five) < 1.05 * before
    for levels, ms in ((13, 714), (12, 540)):
        cost.observe(timed(levels, 102 * levels, ms))
    assert cost.round_ms(five) < 1.05 * before
    for _ in range(2):
        cost.observe(timed(5, 510, 618))
    assert cost.round_ms(five) > before + 200


def test_a_prefill_is_no_round() -> None:
    cost = CostModel(Costs.linear(10, 100))
    cost.observe(timed(2, 900, 5000, draft_prefill=True, verify_prefill=True, caught_up=100))
    assert (draft_ms(cost), verify_ms(cost, 1)) == (10, 100)
    cost.observe(timed(2, 900, 106, draft_prefill=True, caught_up=100))
    assert verify_ms(cost, 3) == pytest.approx(106)
    cost.observe(timed(2, 30, 5000, verify_prefill=True))
    assert (draft_ms(cost), verify_ms(cost, 3)) == (15, pytest.approx(106))
    for _ in range(WINDOW):  # after a rest
        cost.observe(timed(2, 900, 106, caught_up=40))
    assert draft_ms(cost) == 15


def test_a_drafts_prefill_tells_what_reading_takes() -> None:
    """Of a round's draft time, all but its further levels; kept by the next power of two."""
    cost = CostModel(Costs.linear(10, 100))
    assert cost.reading_ms(0) == 0.0 and 10.0 < cost.reading_ms(100) < cost.reading_ms(300)
    for _ in range(3):
        cost.observe(timed(3, 90.0, 109, draft_prefill=True, caught_up=100))  # two further levels took 20
    assert cost.reading_ms(128) == cost.reading_ms(65) == pytest.approx(70.0)
    for _ in range(2):
        cost.learn_reading(1000, 500.0)
    assert cost.reading_ms(1024) == pytest.approx(500.0) and 70 < cost.reading_ms(256) < 500


def test_rounds_without_a_draft_time_no_draft() -> None:
    cost = CostModel(Costs.linear(10, 100))
    cost.observe(timed(3, 60, 109))
    for _ in range(WINDOW):
        cost.observe(timed(0, 0, 100))
        cost.observe(timed(2, None, None))  # whose times could not be had
    assert draft_ms(cost) == 20


def test_three_times_slower_is_believed_within_a_window() -> None:
    cost = CostModel(Costs.linear(10, 100))
    for _ in range(5 * WINDOW):
        cost.observe(timed(4, 40, 112))
    for _ in range(WINDOW):
        cost.observe(timed(4, 120, 336))
    assert draft_ms(cost) == pytest.approx(30, rel=0.01)
    assert [verify_ms(cost, rows) for rows in (1, 5, 9)] == pytest.approx([300, 336, 372], rel=0.01)


def test_what_was_timed_on_a_busy_machine_gets_cheap_again_with_the_rest() -> None:
    """Drafting was timed while all took twice as long; then there is only plain decoding, at the usual speed."""
    cost = CostModel(Costs.linear(40, 100, 20))
    for _ in range(6):
        cost.observe(timed(0, 0, 100))
        cost.observe(timed(1, 40, 120))
    for _ in range(2 * WINDOW):
        cost.observe(timed(1, 80, 240))
    assert cost.round_ms(timed(1, None, None)) == pytest.approx(320, rel=0.02)
    for _ in range(WINDOW):
        cost.observe(timed(0, 0, 100))
    assert cost.rest_ms(1) == pytest.approx(100, rel=0.02)
    assert cost.round_ms(timed(1, None, None)) == pytest.approx(160, rel=0.15)

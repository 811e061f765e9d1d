"""What a round says of itself and leaves in its requests; the running estimates; when to try something out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import level

from speckv.controller.estimates import Ratio
from speckv.controller.exploration import FIRST, LAST, SHARE, Exploration
from speckv.controller.features import RecentAcceptance
from speckv.controller.policy import BEST, SIBLINGS, Request, Round


def finished(gamma: int, accepted: list[int], ranks: list[int], siblings: list[tuple[int, int, int]]) -> Round:
    """A round of that many requests; ``siblings`` are (request, depth, rank)."""
    chosen = np.zeros((len(accepted), gamma, SIBLINGS), dtype=np.bool_)
    for row, depth, rank in siblings:
        chosen[row, depth, rank - 1] = True
    requests = [Request() for _ in accepted]
    return Round(requests, gamma=gamma, siblings=chosen, accepted=accepted, ranks=ranks)


class TestRound:
    def test_siblings_by_hand(self) -> None:
        this = finished(2, [0, 1, 2, 0, 1], [2, 1, 0, BEST, 3], [(0, 0, 2), (0, 1, 1), (1, 1, 2), (2, 0, 1), (3, 0, 3)])
        # The first is right; the second of another rank, the third not needed, the fourth beyond all; none.
        assert this.sibling_hits == [True, False, False, False, False]
        assert (this.size, this.offered_siblings, this.verified) == (5, 5, 15)

    def test_a_sibling_at_another_depth_is_no_hit(self) -> None:
        assert finished(2, [1], [2], [(0, 0, 2)]).sibling_hits == [False]
        assert finished(2, [1], [2], [(0, 1, 2)]).sibling_hits == [True]

    def test_without_siblings(self) -> None:
        this = Round([Request(), Request()], gamma=3, accepted=[3, 0], ranks=[0, 1])
        assert (this.sibling_hits, this.offered_siblings, this.verified) == ([False, False], 0, 6)

    def test_a_request_remembers_its_own_signals_and_acceptance(self) -> None:
        this = Round([Request(), Request()], gamma=1, accepted=[1, 0], ranks=[0, 1])
        this.levels = [level([0.1, 0.2], 0.9), level([0.3, 0.4], 0.8)]
        this.remember()
        one, other = this.requests
        assert one.last is not None and other.last is not None
        assert (one.last[:, 0].tolist(), other.last[:, 0].tolist()) == ([0.1, 0.3], [0.2, 0.4])
        expected = RecentAcceptance()
        expected.add(1, 1)  # of the level that was not verified nothing is known
        assert one.recent.values == expected.values
        expected = RecentAcceptance()
        expected.add(0, 1)
        assert other.recent.values == expected.values

    def test_a_round_without_a_draft_leaves_all_as_it_was(self) -> None:
        request = Request(last=level(1.0))
        before = request.recent.values
        Round([request], accepted=[0], ranks=[0]).remember()
        assert request.recent.values == before and request.last is not None


class TestRecentAcceptance:
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
    def test_it_is_token_by_token_averages(self, rounds: list[tuple[int, int]]) -> None:
        recent = RecentAcceptance()
        hits, tried = [0.75 * 4.0, 0.75 * 8.0], [4.0, 8.0]
        for one, other in rounds:
            accepted, drafted = min(one, other), max(one, other)
            recent.add(accepted, drafted)
            for outcome in [1.0] * accepted + [0.0] * (accepted < drafted):
                for place, kept in enumerate((0.7, 0.93)):
                    hits[place], tried[place] = kept * hits[place] + outcome, kept * tried[place] + 1.0
        assert recent.values == pytest.approx([a / b for a, b in zip(hits, tried, strict=True)])

    def test_the_short_memory_follows_sooner(self) -> None:
        recent = RecentAcceptance()
        recent.add(0, 4)
        assert recent.values[0] < recent.values[1] < 0.75


class TestRatio:
    def test_by_hand(self) -> None:
        ratio = Ratio(0.5, 4.0, 0.9)
        assert ratio.value == 0.5
        ratio.add(3.0, 2.0)
        assert ratio.value == pytest.approx((0.9 * 2.0 + 3.0) / (0.9 * 4.0 + 2.0))
        ratio.add(0.0, 0.0)
        assert ratio.value == pytest.approx((0.9 * 2.0 + 3.0) / (0.9 * 4.0 + 2.0))  # nothing seen, nothing learnt

    @given(st.floats(0, 10), st.floats(0.1, 50), st.floats(0.5, 0.999), st.floats(0.1, 10))
    def test_it_forgets_its_start(self, start: float, weight: float, keep: float, truth: float) -> None:
        ratio = Ratio(start, weight, keep)
        far = abs(start - truth)
        for _ in range(20):
            ratio.add(2.0 * truth, 2.0)
            assert abs(ratio.value - truth) <= far + 1e-9
            far = abs(ratio.value - truth)
        assert far <= abs(start - truth) * weight / (weight + 2.0) + 1e-9


def tried(
    exploration: Exploration, pays: bool, rounds: int, speedup: float = 1.0, catch_up_ms: float = 0.0
) -> list[int]:
    """The numbers of the rounds that did not do what ``pays`` says; each takes 100 ms."""
    other = []
    for number in range(rounds):
        drafts = exploration.drafts(pays, catch_up_ms)
        if drafts != pays:
            other.append(number)
        exploration.learn(drafts, 100.0, speedup if drafts else 1.0)
    return other


class TestExploration:
    def gaps(self, numbers: list[int]) -> list[int]:
        return np.diff([-1, *numbers]).tolist()

    def test_probes_become_rarer_while_they_are_in_vain(self) -> None:
        gaps = self.gaps(tried(Exploration(), False, 700))
        assert gaps[:6] == [FIRST + 1, 2 * FIRST + 1, 4 * FIRST + 1, 8 * FIRST + 1, LAST + 1, LAST + 1]

    def test_a_probe_that_paid_is_soon_repeated(self) -> None:
        exploration = Exploration()
        tried(exploration, False, 300)
        exploration.learn(True, 100.0, speedup=1.5)
        assert tried(exploration, False, 30)[0] == FIRST
        exploration = Exploration()
        tried(exploration, False, 300)
        exploration.learn(True, 100.0, speedup=1.05)  # luck can have done that
        assert FIRST not in tried(exploration, False, 30)

    def test_plain_rounds_become_rarer(self) -> None:
        gaps = self.gaps(tried(Exploration(), True, 700, speedup=1.5))
        assert gaps[:6] == [FIRST + 1, 2 * FIRST + 1, 4 * FIRST + 1, 8 * FIRST + 1, LAST + 1, LAST + 1]

    def test_no_probe_before_catching_up_is_a_small_share_of_the_time_since(self) -> None:
        catch_up = 60.0
        first = tried(Exploration(), False, 100, catch_up_ms=catch_up)[0]
        assert first == math.ceil(catch_up / SHARE / 100.0)
        assert not tried(Exploration(), False, 29, catch_up_ms=catch_up)

    def test_what_catching_up_takes_stops_no_round_that_pays(self) -> None:
        assert Exploration().drafts(True, 1e9)

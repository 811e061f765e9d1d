"""The running correction, by hand and against predictions that are wrong in known ways."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from speckv.controller.arrays import Floats
from speckv.controller.policies.correction import CALM, DOUBT, Correction

AHEAD = 3


def ratio(came: float, foreseen: float) -> float:
    """Of what starts at 1 and learns once."""
    return (CALM * DOUBT + came) / (CALM * DOUBT + foreseen)


def answers(*rows: Sequence[float] | Floats) -> Floats:
    return np.array(rows)


def test_a_round_by_hand() -> None:
    one = Correction()
    asked = {0: answers([0.8, 0.6, 0.5]), 1: answers([0.9, 0.7]), 2: answers([0.5, 0.4])}
    one.learn(asked, [1], 2)
    # The second level, given the first, was 0.7 / 0.9; of the levels by their own signals 0.9 and 0.5.
    assert one.values == pytest.approx({"first": ratio(1, 0.8), "seen": ratio(1, 1.4), "further": ratio(0, 7 / 9)})
    further = one.further.value
    assert one.totals(answers([0.2, 0.1]), 0) == pytest.approx([0.2 * one.first.value, 0.1 * one.first.value * further])
    assert one.totals(answers([0.2, 0.1]), 3) == pytest.approx([0.2 * one.seen.value, 0.1 * one.seen.value * further])


def test_a_level_that_was_left_out_counts_as_its_signals_said() -> None:
    one = Correction()
    one.learn({0: answers([0.8]), 1: answers([0.3])}, [0], 0)
    assert one.values == pytest.approx({"first": ratio(0.3, 0.8), "seen": 1.0, "further": 1.0})
    one = Correction()
    asked = {0: answers([0.8]), 1: answers([0.9, 0.6]), 2: answers([0.18, 0.1])}
    one.learn(asked, [1], 1)
    assert one.further.value == pytest.approx(ratio(0.18 / 0.9, 0.6 / 0.9))
    one = Correction()
    one.learn(asked, [0], 1)  # of what was over before nothing is learnt
    assert one.further.value == 1.0


def test_a_batch_weighs_as_much_as_a_request_and_is_never_more_than_certain() -> None:
    one, batch = Correction(), Correction()
    one.learn({0: answers([0.5, 0.4])}, [1], 1)
    batch.learn({0: answers(*[[0.5, 0.4]] * 4)}, [1] * 4, 1)
    assert one.values == pytest.approx(batch.values) and one.first.value > 1
    assert batch.totals(answers([0.99], [0.1]), 0) == pytest.approx([1.0 + 0.1 * batch.first.value])


def test_what_is_decided_once_learns_of_all_depths_looked_ahead_and_no_further() -> None:
    one = Correction()
    one.learn({0: answers([0.9, 0.8]), 1: answers([0.9, 0.45, 0.3])}, [2], 9)
    assert one.further.value == pytest.approx(ratio(1, 0.5 + 2 / 3))
    nothing = Correction()
    nothing.learn({0: answers([0.9])}, [0], 0)
    assert nothing.values == {"first": 1.0, "seen": 1.0, "further": 1.0}, "nothing was drafted, or seen"


@pytest.mark.parametrize(("first", "seen", "further"), [(1.0, 1.0, 1.0), (0.7, 0.8, 0.65), (1.2, 1.0, 0.7)])
@pytest.mark.parametrize("every_level", [True, False])
def test_it_finds_each_way_to_be_wrong(first: float, seen: float, further: float, every_level: bool) -> None:
    """Tokens hold with 0.9 or 0.3, which their signals tell; what is said of each kind is wrong by its own factor."""
    draws, one, mean, found = np.random.default_rng(1), Correction(), 0.6, []
    for _ in range(4000):
        chances = np.where(draws.random(4) < 0.5, 0.9, 0.3)
        spines = np.cumprod(chances) / seen
        ahead = (mean / further) ** np.arange(AHEAD)
        gamma = next((at for at in range(4) if chances[at] < 0.5 and draws.random() < 0.5), 4) if every_level else 3
        asked = {0: answers(mean / first * ahead)}
        for drafted in range(1, min(4, gamma + 1) + 1 if every_level else 2):
            asked[drafted] = answers(spines[drafted - 1] * ahead)
        one.learn(asked, [int((draws.random(4) < chances)[:gamma].cumprod().sum())], gamma)
        found.append(list(one.values.values()))
    assert np.mean(found[1000:], axis=0) == pytest.approx([first, seen, further], rel=0.1)

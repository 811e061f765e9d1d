"""Which siblings are worth a row: against every subset of small trees."""

from __future__ import annotations

from itertools import chain, combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv.controller.arrays import Floats
from speckv.controller.policy import SIBLINGS, Siblings
from speckv.controller.tree import best_common, best_count, sibling_values


def test_values_by_hand() -> None:
    reach = np.array([[1.0, 0.5], [1.0, 0.1]])
    probabilities = np.array([[[0.2, 0.1, 0.05], [0.4, 0.0, 0.0]], [[0.3, 0.3, 0.3], [0.1, 0.1, 0.1]]])
    found = sibling_values(reach, probabilities, np.array([1.0, 2.0, 0.5]))
    expected = [[[0.2, 0.2, 0.025], [0.2, 0.0, 0.0]], [[0.3, 0.6, 0.15], [0.01, 0.02, 0.005]]]
    assert found == pytest.approx(np.array(expected))


def best(values: Floats, verify_ms: Floats, rate: float) -> Siblings:
    """As a round chooses them that may verify any number of siblings a request."""
    return best_common(values, best_count(values, range(values[0].size + 1), verify_ms, rate))


@given(
    values=st.lists(st.floats(0, 1), min_size=SIBLINGS, max_size=3 * SIBLINGS),
    steps=st.lists(st.sampled_from([0.0, 0.0, 0.5, 3.0, 40.0]), min_size=9, max_size=9),
    rate=st.floats(0.001, 0.2),
    requests=st.sampled_from([1, 3]),
)
def test_the_best_of_all_subsets(values: list[float], steps: list[float], rate: float, requests: int) -> None:
    """Verify times have steps: some siblings are free, and some that do not pay alone pay together."""
    levels = len(values) // SIBLINGS // requests
    if not levels:
        levels, requests = 1, 1
    count = requests * levels * SIBLINGS
    tree = np.array(values[:count]).reshape(requests, levels, SIBLINGS)
    verify = 100.0 + np.concatenate(([0.0], np.cumsum(steps), [999.0]))  # of more rows than there are siblings
    chosen = best(tree, verify, rate)

    def worth(subset: tuple[int, ...]) -> float:
        return sum(tree.flat[one] for one in subset) - rate * (verify[len(subset)] - verify[0])

    of_each = [range(number * levels * SIBLINGS, (number + 1) * levels * SIBLINGS) for number in range(requests)]
    most = max(
        worth(tuple(chain.from_iterable(subset)))
        for size in range(levels * SIBLINGS + 1)
        for subset in product(*(combinations(own, size) for own in of_each))
    )
    assert chosen.shape == tree.shape and chosen.dtype == np.bool_
    assert len(set(chosen.sum(axis=(1, 2)))) == 1
    assert worth(tuple(np.flatnonzero(chosen).tolist())) == pytest.approx(most, abs=1e-9)


def test_nothing_is_chosen_for_nothing() -> None:
    assert not best(np.zeros((2, 2, SIBLINGS)), np.full(20, 100.0), 0.01).any()


def test_a_step_is_crossed_by_many_and_not_by_one() -> None:
    values = np.array([[[0.3, 0.2, 0.1]]])
    verify = np.array([100.0, 150.0, 150.0, 150.0])
    assert best(values, verify, 0.01).all()  # 0.6 for 0.5
    assert not best(values, verify, 0.0125).any()  # 0.6 for 0.625


@given(st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_in_common_every_request_has_its_own_best(count: int, seed: int) -> None:
    values = np.random.default_rng(seed).random((3, 2, SIBLINGS))
    chosen = best_common(values, count)
    assert chosen.shape == values.shape and chosen.dtype == np.bool_
    for own, of in zip(chosen, values, strict=True):
        assert own.sum() == min(count, own.size)
        assert own.all() or not own.any() or of[own].min() >= of[~own].max()

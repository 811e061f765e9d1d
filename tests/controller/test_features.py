"""The features: the paper's names and order, compression levels, summaries."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv.controller.errors import SpecKVError
from speckv.controller.features import FEATURES, SIGNAL_FEATURES, RecentAcceptance, compression_level, summarize

SIGNALS = st.lists(st.tuples(st.floats(0, 12), st.floats(0, 1)), min_size=1, max_size=20)


def test_names_and_order_are_the_papers() -> None:
    assert FEATURES == (
        "mean_draft_entropy",
        "mean_draft_confidence",
        "max_draft_entropy",
        "min_draft_confidence",
        "compression",
        "gamma",
    )
    assert FEATURES[:4] == SIGNAL_FEATURES


@pytest.mark.parametrize(("name", "level"), [("fp16", 0), ("bf16", 0), ("fp32", 0), ("int8", 1), ("nf4", 2)])
def test_levels(name: str, level: int) -> None:
    assert compression_level(name) == level


@pytest.mark.parametrize("name", ["int4", "", "FP16", "0"])
def test_an_unknown_compression_is_named_beside_the_known(name: str) -> None:
    with pytest.raises(SpecKVError, match="no such compression; known are fp16, int8, nf4, bf16, fp32"):
        compression_level(name)


def test_a_summary_by_hand() -> None:
    found = summarize([0.5, 2.0, 0.5], [0.9, 0.3, 0.6])
    assert found == pytest.approx((1.0, 0.6, 2.0, 0.3))


@given(SIGNALS)
def test_summaries_do_not_depend_on_the_order_and_bound_each_other(pairs: list[tuple[float, float]]) -> None:
    entropies, confidences = zip(*pairs, strict=True)
    mean_entropy, mean_confidence, max_entropy, min_confidence = summarize(entropies, confidences)
    assert max_entropy == max(entropies) and min_confidence == min(confidences)
    assert min(entropies) - 1e-9 <= mean_entropy <= max_entropy + 1e-9
    assert min_confidence - 1e-9 <= mean_confidence <= max(confidences) + 1e-9
    assert summarize(entropies[::-1], confidences[::-1]) == pytest.approx(summarize(entropies, confidences))


@given(SIGNALS, st.integers(0, 19), st.booleans())
def test_a_nan_anywhere_reaches_a_mean(pairs: list[tuple[float, float]], where: int, entropy: bool) -> None:
    signals = [list(column) for column in zip(*pairs, strict=True)]
    signals[0 if entropy else 1][where % len(pairs)] = math.nan
    assert math.isnan(summarize(*signals)[0 if entropy else 1])


@given(st.lists(st.integers(0, 20).flatmap(lambda drafted: st.tuples(st.integers(0, drafted), st.just(drafted)))))
def test_recent_acceptance_remembers_token_by_token(rounds: list[tuple[int, int]]) -> None:
    recent = RecentAcceptance()
    for accepted, drafted in rounds:
        recent.add(accepted, drafted)
    for (kept, weight), value in zip(((0.7, 4.0), (0.93, 8.0)), recent.values, strict=True):
        hits, tried = 0.75 * weight, weight
        for accepted, drafted in rounds:
            for hit in [1.0] * accepted + [0.0] * (accepted < drafted):
                hits, tried = kept * hits + hit, kept * tried + 1
        assert value == pytest.approx(hits / tried) and 0 <= value <= 1
    assert RecentAcceptance().values == (0.75, 0.75)

"""The running totals a user asks for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from speckv.controller.policy import BEST, SIBLINGS, Request, Round
from speckv.controller.stats import Stats


def finished(drafted: int, accepted: int | list[int], emitted: int, **more: Any) -> Round:
    """A round of as many requests as ``accepted`` tells of, that verified all it drafted unless ``more`` denies it."""
    each = [accepted] if isinstance(accepted, int) else accepted
    times = {"draft_ms": 2.0 * drafted, "verify_ms": 10.0, "decide_ms": 0.25}
    settings = {"gamma": drafted, "accepted": each, "ranks": [0] * len(each), **times, **more}
    levels = [np.zeros((len(each), 1 + BEST))] * drafted
    return Round([Request() for _ in each], levels=levels, emitted=emitted, **settings)


def totals(*rounds: Round) -> Stats:
    stats = Stats()
    for outcome in rounds:
        stats.add(outcome)
    return stats


def test_totals_by_hand() -> None:
    stats = totals(finished(4, 3, 4), finished(0, 0, 1), finished(4, 0, 1), finished(10, 10, 10))
    assert stats.as_dict() == {
        "rounds": 4,
        "drafted": 18,
        "accepted": 13,
        "wasted": 5,
        "emitted": 16,
        "acceptance_rate": 13 / 18,
        "tokens_per_verify": 4.0,
        "mean_gamma": 4.5,
        "draft_ms": 36.0,
        "verify_ms": 40.0,
        "decide_ms": 1.0,
        "gammas": {"0": 1, "4": 2, "10": 1},
        "siblings": {},
        "sibling_hits": {},
        "trees": None,
    }
    assert list(stats.as_dict()["gammas"]) == ["0", "4", "10"]  # by number, not by letter
    assert json.loads(json.dumps(stats.as_dict())) == stats.as_dict()


def test_a_level_that_was_not_verified_is_drafted_and_wasted() -> None:
    stats = totals(finished(3, 2, 3, gamma=2), finished(1, 0, 1, gamma=0), finished(0, 0, 1, draft_ms=None))
    assert (stats.drafted, stats.accepted, stats.wasted) == (4, 2, 2)
    assert stats.gammas == {2: 1, 0: 2}
    assert stats.draft_ms == 8.0


def test_a_batch_counts_once_per_request() -> None:
    stats = totals(finished(2, [2, 1, 0], 6))
    assert (stats.rounds, stats.drafted, stats.accepted, stats.emitted) == (3, 6, 3, 6)
    assert (stats.tokens_per_verify, stats.mean_gamma, stats.acceptance_rate) == (2.0, 2.0, 0.5)
    assert stats.gammas == {2: 3} and stats.verify_ms == 10.0


def test_siblings_count_by_depth() -> None:
    chosen = np.zeros((2, 3, SIBLINGS), dtype=np.bool_)
    chosen[0, 0, :2] = chosen[1, 0, 0] = chosen[1, 2, 2] = True
    hit = finished(3, [0, 2], 6, ranks=[2, 3], siblings=chosen)  # the second's, at depth 3, and the first's at depth 1
    missed = finished(3, [0, 3], 5, ranks=[3, 0], siblings=chosen)
    stats = totals(hit, missed)
    assert stats.as_dict()["siblings"] == {"1": 6, "3": 2} and stats.as_dict()["sibling_hits"] == {"1": 1, "3": 1}
    merged = totals(hit)
    merged.merge(totals(missed))
    assert merged == stats


def test_nothing_yet_is_no_division_by_zero() -> None:
    empty = Stats()
    assert (empty.acceptance_rate, empty.tokens_per_verify, empty.mean_gamma) == (0.0, 0.0, 0.0)
    assert totals(finished(0, 0, 1)).acceptance_rate == 0.0


def test_merging_is_adding_up() -> None:
    first, second = [finished(4, 2, 3), finished(0, 0, 1)], [finished(4, 4, 5)]
    merged = totals(*first)
    merged.merge(totals(*second))
    assert merged == totals(*first, *second)
    assert totals(*second) == totals(finished(4, 4, 5))

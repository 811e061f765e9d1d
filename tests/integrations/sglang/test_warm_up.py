"""Which rounds are timed at a server's start, whatever the first of all takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sglang")

from speckv.controller.policy import Request, Round
from speckv.integrations.sglang import warm_up
from speckv.integrations.sglang.ranks import Ranks

SHAPES = [(size, gamma, count) for gamma, count in ((0, 0), (4, 0), (8, 8)) for size in (1, 2, 4)]


class Clock:
    """Stands for ``time``; the first round takes ``first`` s, every other a tenth of a second a request."""

    def __init__(self, first: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.first, self.begun = 0.0, first, list[warm_up.Shape]()
        monkeypatch.setattr(warm_up, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(warm_up, "_shapes", lambda worker: iter(SHAPES))
        monkeypatch.setattr(warm_up, "_round", self.round)

    def round(self, worker: Any, size: int) -> None:
        policy: Any = worker.met.policy
        took = 0.1 * size if self.begun else self.first
        self.begun.append(policy.shape)
        self.now += took
        this = Round([Request() for _ in range(size)], levels=[np.zeros((size, 5))] * policy.shape[1])
        this.gamma = policy.shape[1]
        this.draft_ms, this.verify_ms, this.extend_ms = took * 1e3, took * 1e3, took * 1e3
        policy.observe(this)


class Worker:
    device = "cpu"
    met: Any

    def meet(self, decisions: Any) -> None:
        self.met = decisions


@pytest.mark.parametrize("first", [0.5, 2.0, 60.0])
def test_a_single_request_is_timed_in_every_shape(first: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(first, monkeypatch)
    costs = warm_up.timed_costs(Worker(), Ranks(), 2.0)  # type: ignore[arg-type]
    assert costs is not None and costs.verify[1] == pytest.approx(100.0), "the first round is not among them"
    timed = clock.begun[1:]
    for size, of in costs.batches.items():
        assert set(of.verify) == {size * (1 + gamma + count) for of, gamma, count in timed if of == size}
        assert all(ms == pytest.approx(100.0 * size) for ms in of.verify.values())
    assert {shape for shape in timed if shape[0] == 1} == {shape for shape in SHAPES if shape[0] == 1}
    assert any(shape[0] > 1 for shape in timed) == (first < 2.0)
    assert clock.now < max(2.0, first) + 0.4


def test_nothing_is_timed_where_no_seconds_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1.0, monkeypatch)
    assert warm_up.timed_costs(Worker(), Ranks(), 0.0) is None  # type: ignore[arg-type]
    assert not clock.begun

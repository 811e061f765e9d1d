"""A round of the server between its beginning and its end, and what is kept of a request between its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from speckv.controller.policy import BEST, SIBLINGS, Request, Round
from speckv.integrations.sglang.letter import Letter
from speckv.integrations.signals import CANDIDATES, LEVEL

Packed = NDArray[np.float32]
"""(…, WIDTH): drafted tokens, their signals and candidates, as ``signals.pack`` gives them."""

UNKNOWN: Packed = np.array((0.0, 1.0, 0.7, 0.1, 0.05, 0.03, *[-1.0] * BEST), dtype=np.float32)
"""Stands for a first token without signals: about the mean of the shipped training data."""


@dataclass(slots=True)
class Served(Request):
    """A request of the server; ``first`` is where its next round's first token has its signals: in a letter's row."""

    first: tuple[Letter, int] | None = None
    states: list[tuple[Tensor, int]] = field(default_factory=list)
    """For a head, in which tensors and rows the target's hidden states are of the tokens that are new to it.

    If none is, of the last token.
    """


@dataclass(slots=True)
class UnderWay:
    """A round between its beginning and its end; ``limit`` is the most levels that it may still have."""

    requests: Sequence[Any]
    this: Round
    widths: Sequence[int]
    limit: int
    first: list[tuple[Letter, int] | None] = field(default_factory=list)
    drafted: list[Packed] = field(default_factory=list)
    """(n, WIDTH) of every level that the host has read."""
    rest: Letter | None = None
    """(n, γ − 1, WIDTH): of the levels after the first, where no decision has read them."""
    places: Letter | None = None
    """(n, K): the siblings verified, as ``tree.best_siblings`` gives them."""
    said: Letter | None = None
    """(n, 2 γ + 1): the spine's tokens, then those that the target gave, as many as were accepted and one."""
    marks: dict[str, Any] = field(default_factory=dict)
    beside_ms: float = 0.0  # deciding before and after drafting
    began: float = 0.0
    """On the host's clock, seconds."""
    before: UnderWay | None = None
    """The round before, if nothing was between; kept until this one ends."""
    device_ms: float | None = None
    """What its forwards took, those included by which the draft caught up."""

    def first_level(self) -> Packed:  # which the draft's forward before this round gave
        return np.stack([UNKNOWN if place is None else place[0].read()[place[1]] for place in self.first])

    def outcome(self, correct: list[int]) -> None:
        """Say in the round what became of it: ``correct`` tokens of each request were drafted, siblings included."""
        this, gamma, size = self.this, self.this.gamma, len(correct)
        this.emitted = sum(correct) + size
        this.accepted, this.ranks = correct, [0] * size
        if self.rest is not None:
            self.drafted.extend(self.rest.read().swapaxes(0, 1))
        this.levels = [level[:, LEVEL] for level in self.drafted]
        if not gamma or self.said is None:
            return
        if self.places is not None:
            places = self.places.read()
            chosen = np.zeros((size, gamma * SIBLINGS + 1), dtype=np.bool_)
            np.put_along_axis(chosen, places, True, axis=1)
            this.siblings = chosen[:, :-1].reshape(size, gamma, SIBLINGS)
        spine, said = np.split(self.said.read(), [gamma], axis=1)
        right = (said[:, :gamma] == spine) & (np.arange(gamma) < np.array(correct)[:, None])
        this.accepted = right.cumprod(axis=1).sum(axis=1).tolist()
        for row, depth in enumerate(this.accepted):
            if depth < gamma and row not in this.plain:
                others = [*self.drafted[depth][row, CANDIDATES][1:], said[row, depth]]
                this.ranks[row] = others.index(said[row, depth]) + 1

"""The tokens that a round verifies: the drafted spine, and whatever else branches off beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from speckv.controller.policy import BEST, Siblings


@dataclass
class Drafted:
    """A round's spine, ``tokens``, and beside each the SIBLINGS best other tokens, −1 where the target has fewer.

    ``drawn_from`` has the probabilities (1, V) that each was drawn with, when sampling.
    """

    tokens: list[int] = field(default_factory=list)
    others: list[list[int]] = field(default_factory=list)
    drawn_from: list[Tensor] = field(default_factory=list)
    ended: bool = False

    def cut(self, gamma: int) -> None:
        """Leave out all but the first ``gamma`` tokens."""
        del self.tokens[gamma:], self.others[gamma:], self.drawn_from[gamma:]

    def rank(self, level: int, token: int) -> int:
        """Of the target's ``token`` where the spine's was rejected, as a ``Round`` has it."""
        others = self.others[level]
        return others.index(token) + 1 if token in others else BEST


class Tree:
    """Rows of one forward after a sequence: row 0 is the sequence's last token, row i + 1 the i-th of ``tokens``.

    ``parents`` are rows, each before its children. The first ``spine`` tokens are a chain from row 0 and may have been
    drawn from the draft; all others were chosen beside what was drawn, and no two children of a row are the same token.
    """

    def __init__(self, tokens: list[int], parents: Sequence[int], spine: int) -> None:
        self.tokens, self.parents, self.spine = tokens, parents, spine
        self._rows = {(parent, token): row + 1 for row, (parent, token) in enumerate(zip(parents, tokens, strict=True))}

    @classmethod
    def chain(cls, tokens: list[int]) -> Tree:
        return cls(tokens, range(len(tokens)), len(tokens))

    @classmethod
    def beside(cls, spine: list[int], others: Sequence[Sequence[int]], chosen: Siblings | None) -> Tree:
        """``spine`` with the ``chosen`` (γ, SIBLINGS) of ``others``: by level, the best other tokens."""
        if chosen is None:
            return cls.chain(spine)
        depths, ranks = (places.tolist() for places in np.nonzero(chosen))
        tokens = [others[depth][rank] for depth, rank in zip(depths, ranks, strict=True)]
        return cls([*spine, *tokens], [*range(len(spine)), *depths], len(spine))

    @property
    def rows(self) -> int:
        return len(self.tokens) + 1

    @property
    def branches(self) -> bool:
        return len(self.tokens) > self.spine

    def child(self, row: int, token: int) -> int | None:
        """The row of ``token`` after ``row``, if it is there."""
        return self._rows.get((row, token))

    def path(self, row: int) -> list[int]:
        """The tokens from row 0, which is not among them, to ``row``."""
        found: list[int] = []
        while row:
            found.append(self.tokens[row - 1])
            row = self.parents[row - 1]
        return found[::-1]

    def sees(self) -> NDArray[np.bool_]:
        """(rows, rows): which rows each row follows, itself among them."""
        found = np.eye(self.rows, dtype=np.bool_)
        for row, parent in enumerate(self.parents):
            found[row + 1] |= found[parent]
        return found

"""What a round over a batch costs in a server, where the draft closes every round with a forward of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from speckv.controller.cost import Costs, Curve
from speckv.controller.policies.batch import BatchRound


class BatchCost:
    """Milliseconds of a round over ``size`` requests, guessed from forward times by rows, then timed.

    At the end of a round the draft processes what the round committed (SGLang's draft-extend), and this forward gives
    the first draft token of the next. So with the draft at work a round of γ takes

        t(γ) = max(0, γ − 1) · draft(B) + verify(B · (γ + 1)) + extend(B · (γ + 1)),

    where t(0) has a draft-extend too, and a first draft token costs no more than its row; a round in which the draft
    rests takes verify(B).
    """

    def __init__(
        self, size: int, draft: Mapping[int, float], verify: Mapping[int, float], extend: Mapping[int, float]
    ) -> None:
        self.size = size
        self._draft, self._verify, self._extend = (Curve(dict(sorted(of.items()))) for of in (draft, verify, extend))
        self._rounds = 0

    @classmethod
    def guess(cls, size: int, costs: Costs) -> BatchCost:
        """Before anything was timed; a draft-extend is taken for a draft forward of as many rows."""
        return cls(size, costs.draft, costs.verify, costs.draft)

    def like(self, size: int, most: int) -> BatchCost:
        """What this size's costs say of another ``size``, up to γ = ``most``: that rows cost what they cost here."""
        rows = [size * (gamma + 1) for gamma in range(most + 1)]
        draft, extend = self._draft, self._extend
        scale = self._unseen
        return BatchCost(
            size,
            {at: scale * draft.time(at) for at in (size, size + 1)},
            {at: self._verify.time(at) for at in rows},
            {at: scale * extend.time(at) for at in rows},
        )

    @property
    def rest_ms(self) -> float:
        """A round without any work of the draft."""
        return self._verify.time(self.size)

    @property
    def _unseen(self) -> float:
        """Until the draft is timed, its guess is as wrong as that of the verify."""
        return 1.0 if self._extend.timed else self._verify.factor(self.size)

    def times(self, gammas: Sequence[int]) -> list[float]:
        """t(γ) of several γ."""
        scale = self._unseen
        forward = scale * self._draft.time(self.size)
        rows = [self.size * (gamma + 1) for gamma in gammas]
        return [
            max(0, gamma - 1) * forward + self._verify.time(at) + scale * self._extend.time(at)
            for gamma, at in zip(gammas, rows, strict=True)
        ]

    def round_ms(self, outcome: BatchRound) -> float:
        """What the like of ``outcome`` takes."""
        return self.times((outcome.drafted,))[0] if outcome.active else self.rest_ms

    def observe(self, outcome: BatchRound) -> None:
        """Learn from a finished round's times."""
        self._rounds += 1
        rows = outcome.size * (outcome.drafted + 1)
        change = self._verify.learn(rows, outcome.verify_ms, self._rounds)
        if outcome.active:
            change = self._extend.learn(rows, outcome.extend_ms, self._rounds)
        elif self._extend.timed:
            self._extend.follow(change)
        if outcome.drafted > 1:
            self._draft.learn(outcome.size, outcome.draft_ms / (outcome.drafted - 1), self._rounds)
        elif self._draft.timed:
            self._draft.follow(change)


class ReadingCost:
    """Milliseconds in which the draft reads rows it has not seen: prompts, and what was decoded while it rested.

    Timings are kept by the next power of two of the rows, since these can be any number.
    """

    def __init__(self, costs: Costs) -> None:
        self._curve = Curve(dict(sorted(costs.draft.items())))
        self._readings = 0

    def ms(self, rows: int) -> float:
        """Reading ``rows`` in one forward, over all requests."""
        return self._curve.time(_bucket(rows)) if rows else 0.0

    def observe(self, rows: int, ms: float) -> None:
        self._readings += 1
        self._curve.learn(_bucket(rows), ms, self._readings)


def _bucket(rows: int) -> int:
    return 1 << (rows - 1).bit_length()

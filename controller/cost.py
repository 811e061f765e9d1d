"""What a round takes: one model, of the two shapes that rounds have, for any batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from speckv.controller.arrays import Floats
from speckv.controller.batch_curves import BatchCurves
from speckv.controller.curve import Costs, Curve
from speckv.controller.estimates import Ratio
from speckv.controller.policy import SIBLINGS, Round

MOST_TABLES = 64

LATELY = 0.98
"""Weight that what the host takes in a round keeps per later round."""

SETTLED = 8
"""Rounds after which times are looked up anew: a table of medians takes a while."""


class CostModel:
    """Milliseconds of a round over n requests that drafts γ levels and verifies s siblings; rows are of all requests.

    ``extends`` False, draft then verify (transformers):  γ · draft(n) + verify(n, n · (γ + 1) + s).

    ``extends`` True, SGLang, where the draft closes a round with a forward over all that was verified, which gives the
    first level of the next:  max(0, γ − 1) · draft(n) + verify(n, n · (γ + 1) + s) + extend(n, n · (γ + 1)).

    A round without levels takes verify(n, n). To either comes what the host takes around the forwards, which is another
    time for a round that drafts, since the device waits there for decisions: nothing until a loop tells it. The model
    starts from ``costs`` and follows the loop's timings.
    """

    def __init__(self, costs: Costs, extends: bool = False) -> None:
        self.costs, self.extends = costs, extends
        batches = costs.by_requests
        self._verify = BatchCurves({size: of.verify for size, of in batches.items()})
        # Until it is timed, a draft-extend is taken for a draft forward of as many rows.
        self._extend = BatchCurves({size: of.draft for size, of in batches.items()})
        own = {size: of.draft[size] for size, of in batches.items() if size in of.draft}
        further = {rows: ms for rows, ms in costs.draft.items() if rows > max(own, default=0)}
        self._draft = Curve(dict(sorted((own | further).items())))
        self._reading = Curve(dict(sorted(costs.draft.items())))
        self._host = {rests: Ratio(0.0, 1.0, LATELY) for rests in (True, False)}
        self._rounds = self._readings = self._position = 0
        self._tables: dict[tuple[int, int], tuple[int, Floats, Floats]] = {}

    def rest_ms(self, size: int) -> float:
        """A round of ``size`` requests in which nothing is drafted."""
        return self._verify.of(size).time(size) + self._beside(size)

    def first_ms(self, size: int) -> float:
        """What the draft takes for the first level."""
        return float(self._drafting(size, 1)[1])

    def tables(self, size: int, ceiling: int) -> tuple[Floats, Floats]:
        """(the draft's time by levels 0 … ``ceiling``, the verify's by rows 0 … all that so many levels can have)."""
        key = (size, ceiling)
        known = self._tables.get(key)
        if known is None or self._rounds - known[0] >= (SETTLED if self._rounds > SETTLED else 1):
            most = size * (1 + ceiling * (1 + SIBLINGS))
            verify = self._verify.of(size).times(np.arange(most + 1)) + self._beside(size)
            if len(self._tables) >= MOST_TABLES:
                self._tables.clear()
            known = self._tables[key] = (self._rounds, self._drafting(size, ceiling), verify)
        return known[1], known[2]

    def round_ms(self, outcome: Round) -> float:
        """What a round shaped like ``outcome`` is modelled to take."""
        size, levels = outcome.size, len(outcome.levels)
        verifying = self._verify.of(size).time(size + outcome.verified) + self._beside(size)
        return verifying + float(self._drafting(size, max(1, levels))[levels])

    def reading_ms(self, tokens: int) -> float:
        """The draft processing ``tokens`` that are new to it, of all requests, in one forward."""
        return self._reading.time(_bucket(tokens)) if tokens else 0.0

    def learn_reading(self, tokens: int, ms: float) -> None:
        """Timings are kept by the next power of two of the tokens, since these can be any number."""
        self._readings += 1
        self._reading.learn(_bucket(tokens), ms, self._readings)

    def learnt(self) -> Costs:
        """What a model of the same pair should start from another time."""
        verify, extend, draft = self._verify.timed_rows(), self._extend.timed_rows(), self._draft.timed_rows()
        batches = self.costs.by_requests
        for size in sorted({*verify, *extend, *draft}):
            of = batches.get(size, Costs({}, {}))
            own = {size: draft[size]} if size in draft else {}
            batches[size] = replace(
                of, draft={**of.draft, **extend.get(size, {}), **own}, verify={**of.verify, **verify.get(size, {})}
            )
        return replace(batches.pop(1), batches=batches)

    def observe(self, outcome: Round) -> None:
        """Learn from a finished round's times, those that are there."""
        self._rounds += 1
        self._position = outcome.position
        size, levels = outcome.size, len(outcome.levels)
        if outcome.before_ms is not None:
            self._host[outcome.after_rest].add(outcome.before_ms, 1.0)
        change = 1.0
        if outcome.verify_ms is not None and not outcome.verify_prefill:
            if not (levels or self._verify.has(size, size)):
                self._tables.clear()  # what drafting is compared with is not known by a guess any more
            verify_ms = outcome.verify_ms - self._verify_context(size)
            change = self._verify.learn(size, size + outcome.verified, verify_ms, self._rounds)
        if self.extends and outcome.extend_ms is not None and not outcome.resting:
            self._extend.learn(size, size * (outcome.gamma + 1), outcome.extend_ms, self._rounds)
        elif self._extend.timed:
            self._extend.follow(change)
        forwards = levels - self.extends
        # In transformers' loop the draft catches up in the forward of its first level.
        catching_up = outcome.draft_prefill or (not self.extends and outcome.caught_up > size)
        if outcome.draft_ms is not None and catching_up:
            forward = float(np.diff(self._drafting(size, 2))[1])
            self.learn_reading(outcome.caught_up, max(forward, outcome.draft_ms - (levels - 1) * forward))
        elif outcome.draft_ms is not None and forwards > 0:
            self._draft.learn(size, outcome.draft_ms / forwards - self._draft_context(size), self._rounds)
        elif self._draft.timed and not levels:
            self._draft.follow(change)

    def _draft_context(self, size: int) -> float:
        """What the context of ``size`` requests adds to a draft forward, ms."""
        return self.costs.draft_context * size * self._position / 1e3

    def _verify_context(self, size: int) -> float:
        return self.costs.verify_context * size * self._position / 1e3

    def _beside(self, size: int) -> float:
        """What comes to the verify of every round of ``size`` requests, ms: by its context, and the host's."""
        return self._verify_context(size) + self._host[True].value

    def _drafting(self, size: int, ceiling: int) -> Floats:
        # Until drafts are timed, their guess is as wrong as that of the smallest verify timed.
        levels = np.arange(ceiling + 1)
        scale = 1.0 if self._draft.timed else self._verify.factor(size, size)
        forward = scale * self._draft.time(size) + self._draft_context(size)
        if not self.extends:
            return levels * forward
        scale = 1.0 if self._extend.timed else self._verify.factor(size, size)
        found = np.maximum(0, levels - 1) * forward + scale * self._extend.of(size).times(size * (levels + 1))
        found += max(0.0, self._host[False].value - self._host[True].value)
        found[0] = 0.0  # nothing is drafted
        return found


def _bucket(tokens: int) -> int:
    return 1 << (tokens - 1).bit_length()

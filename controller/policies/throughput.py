"""Our default: the tree that is worth most beyond the time it takes, decided before drafting or after every level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from speckv.controller.arrays import Floats
from speckv.controller.batch_curves import alike
from speckv.controller.cost import MOST_TABLES, CostModel
from speckv.controller.curve import Costs
from speckv.controller.estimates import Ratio
from speckv.controller.features import FURTHEST, LEAST_CONFIDENCE
from speckv.controller.policies.correction import Correction
from speckv.controller.policies.learned import Controller, LearnedPolicy
from speckv.controller.policies.pace import Pace
from speckv.controller.policies.siblings import SiblingPlan
from speckv.controller.policy import Round, Siblings
from speckv.controller.tree import best_common, best_count

HIGHEST_CEILING = 20
AHEAD = 3
"""Levels that are looked ahead where each is decided on: verify times have steps, so two may pay where one does not."""

LENGTH, LATELY = 128.0, 0.95
"""Tokens of output expected of the first request, and the weight one keeps per later one."""


@dataclass(slots=True)
class _Notes:
    """Of one round: what its decisions share, and what is to be compared with its outcome."""

    limit: int
    rate: float
    plain: list[int]
    """Requests of which no draft token survives."""
    alive: float
    """Requests whose spine should survive all levels but the newest."""
    drafting: Floats
    verify: Floats
    prices: Floats
    """(max_gamma + 1, choices): ρ times what a shape takes beyond a plain round, all of its levels drafted."""
    features: NDArray[np.float32]
    """(7, n): SURVIVAL_FEATURES but the last."""
    signals: tuple[NDArray[np.float32], ...]
    """The first three of these, (n,) each."""
    entropies: NDArray[np.float32]
    """(n,): their sum over the drafted levels."""
    asked: dict[int, Floats] = field(default_factory=dict)
    """By how many levels were drafted, the controller's answers (n, K): P(accepted ≥ j) from that level on, or of 1."""
    siblings: int | None = None
    """Of each request, where that is decided before drafting."""
    values: Floats | None = None
    broken: bool = False

    @property
    def first(self) -> float:
        """Σ over requests of P(accepted ≥ 1) as predicted, uncorrected, before anything was drafted."""
        return float(np.add.reduce(self.asked[0][:, 0]))


class ThroughputPolicy(LearnedPolicy):
    """Maximises tokens per second: the shape (γ, siblings) of most  E[tokens] − ρ · E[time],  round by round.

    ρ is the policy's own throughput (tokens per ms), at least plain decoding's: rounds are a renewal-reward process, so
    the best ratio of sums is had by maximising that difference in every round (Dinkelbach). γ = 0 is among the shapes.

    A round begins with what the requests' acceptance says, which decides whether the draft works at all. After the
    first level its signals say how deep to draft and with how many siblings (before drafting, ``per_level`` False), or
    whether to go on by one (``per_level``); the level just drafted may be left out again, and none before it: it would
    then depend on a drawn token. Siblings are chosen once all levels are there, as many as pay or as were decided on.
    """

    def __init__(
        self,
        controller: Controller,
        compression: int,
        cost: CostModel,
        max_gamma: int = HIGHEST_CEILING,
        per_level: bool = True,
        siblings: bool = True,
        fallback_gamma: int = 4,
    ) -> None:
        super().__init__(controller, compression, max_gamma, fallback_gamma)
        self.cost, self.per_level = cost, per_level
        self._length = Ratio(LENGTH, 1.0, LATELY)
        self._plan = SiblingPlan(max_gamma, siblings)
        self._correction = Correction()
        self._paces: dict[int, Pace] = {}
        self._tables: dict[int, tuple[Floats, Floats]] = {}
        self._further = tuple(range((AHEAD if per_level else FURTHEST) + 1))

    def begin(self, this: Round, room: int) -> int:
        limit = min(self.max_gamma, room)
        if limit <= 0:
            return 0
        size = this.size
        pace = self._pace(size)
        drafting, verify = self.cost.tables(size, self.max_gamma)
        rate = pace.rate(size, float(verify[size]))
        features = np.zeros((7, size), dtype=np.float32)
        features.T[:, 3:5] = [request.recent.values for request in this.requests]
        features[5] = self.compression
        prices = rate * self._shapes(size, drafting, verify)
        entropies = np.zeros(size, dtype=np.float32)
        of = tuple(features[:3])
        plain = [*this.plain]
        alive = float(size - len(plain))
        notes = this.notes = _Notes(limit, rate, plain, alive, drafting, verify, prices, features, of, entropies)
        gains, tokens = self._gains(notes, self._alive(notes, 0, self._further[1:]), 0)
        depth, choice = divmod(int(gains.argmax()), gains.shape[1])
        pays = depth > 0 or pace.option(notes.first) >= rate * drafting[1]
        pace.promise(size, float(tokens[depth, choice]), float(gains[depth, choice]) / rate)
        return limit if pace.drafts(pays, size, sum(request.stale for request in this.requests)) else 0

    def deepen(self, this: Round) -> int:
        notes: _Notes = this.notes
        level, drafted = this.levels[-1], len(this.levels)
        if notes.broken or not self.usable(level):
            notes.broken = True
            # None that was drafted before is left out: what came of them was drawn.
            return max(min(self.fallback_gamma, notes.limit), drafted)
        entropies, confidences = level.T[:2]
        mean, surprise, most = notes.signals
        np.add(notes.entropies, entropies, out=notes.entropies)
        np.divide(notes.entropies, drafted, out=mean)
        np.add(surprise, np.log(np.maximum(confidences, LEAST_CONFIDENCE)), out=surprise)
        np.maximum(most, entropies, out=most)
        notes.features[6] = drafted
        alive = self._alive(notes, drafted, self._further)
        gains, _ = self._gains(notes, alive, drafted)
        depth, choice = divmod(int(gains.argmax()), gains.shape[1])
        gamma: int = drafted - 1 + depth
        if not self.per_level:
            notes.siblings = int(self._plan.counts[gamma, choice])
            return gamma
        notes.alive = alive[1]
        return notes.limit if gamma > drafted else gamma

    def choose(self, this: Round) -> Siblings | None:
        notes: _Notes = this.notes
        values = self._values(this)
        if values is None:
            return None
        every, count = range(values[0].size + 1), notes.siblings
        return best_common(values, self._best_count(this, values, every) if count is None else count)

    def common(self, this: Round, allowed: Sequence[int]) -> int:
        notes: _Notes = this.notes
        if notes.broken:
            return 0
        if not self.per_level:
            return max(count for count in allowed if count <= (notes.siblings or 0))
        values = self._values(this)
        if values is None:
            return 0
        return self._best_count(this, values, allowed)

    def observe(self, this: Round) -> None:
        self.cost.observe(this)
        notes: _Notes | None = this.notes
        first = rate = 0.0
        if notes is not None:
            rate = notes.rate
            if this.levels and not notes.broken:
                first = notes.first
                self._correction.learn(notes.asked, this.accepted, this.gamma)
        if (values := self._values(this)) is not None:
            self._plan.learn(this, values)
        self._pace(this.size).learn(this, first, rate)
        self.cost.tables(this.size, self.max_gamma)  # now, and not when a round waits for its decision

    def prefill(self, size: int, requests: int, tokens: int) -> bool:
        return self._pace(size).worth_reading(size, requests, tokens)

    def caught_up(self, tokens: int, ms: float) -> None:
        self.cost.learn_reading(tokens, ms)

    def learnt(self) -> Costs:
        return self.cost.learnt()

    def ended(self, tokens: int) -> None:
        self._length.add(tokens, 1.0)

    def _pace(self, size: int) -> Pace:
        size = alike(size)
        if size not in self._paces:
            self._paces[size] = Pace(self.cost, self._length)
        return self._paces[size]

    def _shapes(self, size: int, drafting: Floats, verify: Floats) -> Floats:
        """What every γ and planned number of siblings takes beyond a plain round, (max_gamma + 1, choices)."""
        known = self._tables.get(size)
        if known is None or known[0] is not verify:
            depths = np.arange(self.max_gamma + 1)[:, None]
            shapes = verify[size * (1 + depths + self._plan.counts)] - verify[size] + drafting[depths]
            if len(self._tables) >= MOST_TABLES:
                self._tables.clear()
            known = self._tables[size] = (verify, shapes)
        return known[1]

    def _best_count(self, this: Round, values: Floats, allowed: Sequence[int]) -> int:
        notes: _Notes = this.notes
        return best_count(values, allowed, notes.verify[this.size * (1 + this.gamma) :], notes.rate)

    def _values(self, this: Round) -> Floats | None:
        """What every sibling of a round's levels is worth; None where none is drafted, or nothing is known of them."""
        notes: _Notes | None = this.notes
        if notes is None or notes.broken or not self._plan.used or not this.gamma:
            return None
        if notes.values is None:
            signals = np.concatenate(this.levels[: this.gamma]).reshape(this.gamma, this.size, -1).swapaxes(0, 1)
            if not self.per_level and not self.usable(signals):
                notes.broken = True
                return None
            notes.values = self._plan.values(signals)
            if notes.plain:
                notes.values[notes.plain] = 0.0
        return notes.values

    def _alive(self, notes: _Notes, drafted: int, further: tuple[int, ...]) -> list[float]:
        """Σ over requests of P(accepted ≥ j), corrected: as known before, and of j = drafted + e for each e."""
        answers = notes.asked[drafted] = self.controller.survival(notes.features.T, further).copy()
        if notes.plain:
            answers[notes.plain] = 0.0
        return [notes.alive, *self._correction.totals(answers, drafted)]

    def _gains(self, notes: _Notes, alive: list[float], drafted: int) -> tuple[Floats, Floats]:
        """What verifying γ = first, first + 1 … levels with each planned number of siblings is worth, and its tokens.

        first is 0 before drafting, and then one less than was ``drafted``; ``alive`` begins with it. Both are (depths,
        choices): tokens beyond the target's own and beyond those of ``first``, and these less ρ times what the shape
        takes.
        """
        first, size = max(0, drafted - 1), len(notes.entropies) - len(notes.plain)
        last = min(first + len(alive), notes.limit + 1)
        tokens, least = 0.0, alive[0]
        # What the newest level took is spent, whether or not it is verified.
        spent = notes.rate * float(notes.drafting[drafted] - notes.drafting[first])
        rows = [(-spent, size - least)]
        for one in alive[1 : last - first]:
            least = min(least, one)
            tokens += least
            rows.append((tokens, size - least))
        worth: Floats = np.array(rows).dot(self._plan.basis)
        gains: Floats = worth - notes.prices[first:last]
        return gains, worth

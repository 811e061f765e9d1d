"""What a step costs: milliseconds to draft a token and to verify rows, guessed, then timed by the loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import median

from speckv.controller.policy import Round

BYTES_PER_MS = 1.5e7
"""Memory bandwidth assumed before anything was timed (15 GB/s); only ratios of costs matter until then."""

ROW_SHARE = 0.03
"""Assumed extra verify time per further row before it was timed: small, as weights bound a forward's time."""

WINDOW = 24
"""Timings remembered per quantity. Their median is the estimate: half of them may be outliers, and a change
of the machine's load is believed after half a window."""

LIFE = 128
"""Rounds after which a timing counts only where fewer than three younger ones are known."""


class CostModel:
    """Time of one step with γ drafted tokens: t(γ) = γ · draft + verify(γ + 1 rows), in milliseconds.

    ``verify(n)`` is a table by rows, since real kernels have steps: it is the guess from sizes times a factor
    interpolated between the row counts that were timed, made non-decreasing.
    """

    def __init__(self, draft_ms: float, verify_ms: float, row_ms: float | None = None) -> None:
        self._draft_guess = draft_ms
        self._verify_guess = verify_ms
        self._row_guess = ROW_SHARE * verify_ms if row_ms is None else row_ms
        self._drafts: deque[float] = deque(maxlen=WINDOW)
        self._verifies: dict[int, deque[tuple[int, float]]] = {}
        self._rounds = 0
        self._table: list[float] = []

    @classmethod
    def from_sizes(cls, target_bytes: float, draft_bytes: float) -> CostModel:
        """A guess before anything was timed: a small batch's forward takes as long as reading the weights."""
        return cls(draft_bytes / BYTES_PER_MS, target_bytes / BYTES_PER_MS)

    @property
    def draft_ms(self) -> float:
        """One drafted token, with its share of bringing the draft's cache up to date."""
        if self._drafts:
            return median(self._drafts)
        return self._draft_guess * self._scale()

    def verify_ms(self, rows: int) -> float:
        """One target forward over ``rows`` ≥ 1 new positions."""
        while len(self._table) < rows:
            self._extend()
        return self._table[rows - 1]

    def step_ms(self, gamma: int) -> float:
        """One step that drafts ``gamma`` ≥ 0 tokens."""
        return gamma * self.draft_ms + self.verify_ms(gamma + 1)

    def step_times(self, gammas: Sequence[int]) -> list[float]:
        """``step_ms`` of several γ."""
        draft = self.draft_ms
        return [gamma * draft + self.verify_ms(gamma + 1) for gamma in gammas]

    def observe(self, outcome: Round) -> None:
        """Learn from a finished round's times, except those that hold a prefill."""
        self._rounds += 1
        if outcome.drafted and not outcome.draft_prefill:
            self._drafts.append(outcome.draft_ms / outcome.drafted)
        if not outcome.verify_prefill and outcome.verify_ms > 0:
            rows = outcome.drafted + 1
            self._verifies.setdefault(rows, deque(maxlen=WINDOW)).append((self._rounds, outcome.verify_ms))
            self._table.clear()

    def _guess(self, rows: int) -> float:
        return self._verify_guess + (rows - 1) * self._row_guess

    def _scale(self) -> float:
        """How much slower than guessed the verify is; until drafts are timed, their guess scales with it."""
        if not self._verifies:
            return 1.0
        rows = min(self._verifies)
        return self._slowness(rows)

    def _slowness(self, rows: int) -> float:
        """How many times longer than guessed a verify of ``rows``, which was timed, takes."""
        timings = list(self._verifies[rows])
        young = [ms for at, ms in timings if at > self._rounds - LIFE]
        return median(young if len(young) >= 3 else [ms for _, ms in timings[-3:]]) / self._guess(rows)

    def _extend(self) -> None:
        rows = len(self._table) + 1
        value = self._guess(rows) * self._factor(rows)
        self._table.append(max(value, self._table[-1]) if self._table else value)

    def _factor(self, rows: int) -> float:
        known = sorted(self._verifies)
        if not known:
            return 1.0
        below = max((n for n in known if n <= rows), default=known[0])
        above = min((n for n in known if n >= rows), default=known[-1])
        low, high = self._slowness(below), self._slowness(above)
        share = (rows - below) / (above - below) if above != below else 0.0
        return low + share * (high - low)

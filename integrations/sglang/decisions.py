"""Between SGLang's round and the policy: asks on rank 0, tells all ranks, and reports what came of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs
from speckv.controller.policies import make_policy
from speckv.controller.policy import Policy, Round
from speckv.integrations.runtime import Controller
from speckv.integrations.sglang.config import Config
from speckv.integrations.sglang.metrics import Metrics
from speckv.integrations.sglang.ranks import Ranks
from speckv.integrations.sglang.sampling import relaxed
from speckv.integrations.sglang.timing import Stopwatch
from speckv.integrations.sglang.under_way import Packed, Served, UnderWay
from speckv.integrations.signals import LEVEL


def build_policy(
    config: Config,
    controller: Controller | None,
    level: int,
    costs: Costs,
    max_gamma: int,
    per_token: bool,
    siblings: bool,
) -> Policy:
    """The policy that ``config`` asks for; ``costs`` are what it begins with.

    ``per_token``: it may decide while drafting; ``siblings``: a tree can be verified.
    """
    return make_policy(
        controller,
        config.objective,
        "token" if per_token else "step",
        level,
        CostModel(costs, extends=True),
        config.gamma,
        max_gamma,
        siblings=siblings,
        fallback_gamma=config.fallback_gamma,
    )


HICCUP = 3.0
"""A host that takes more than so many times the forwards was held up by something else than the round."""


class Decisions:
    """The policy as the workers see it.

    ``mixes``: whether a round may draft while some of its requests are decoded plainly.
    """

    def __init__(
        self,
        policy: Policy,
        ranks: Ranks,
        stopwatch: Stopwatch,
        metrics: Metrics,
        mixes: bool = True,
    ) -> None:
        self.policy, self.ranks, self.stopwatch, self.metrics = policy, ranks, stopwatch, metrics
        self.mixes = mixes
        self.round: UnderWay | None = None
        self._before: UnderWay | None = None
        self._unfinished: deque[UnderWay] = deque()
        self._served: WeakKeyDictionary[Any, Served] = WeakKeyDictionary()
        self._running: list[Any] = []
        self._readings: deque[tuple[int, Any, Any]] = deque()

    def served(self, requests: Sequence[Any]) -> list[Served]:
        """What is known of SGLang's ``requests``."""
        return [self._served.setdefault(request, Served()) for request in requests]

    def begin(self, requests: Sequence[Any], widths: Sequence[int]) -> int:
        """Start a round; the most tokens to draft in it, one of the ascending ``widths`` (0 leaves the draft alone)."""
        self._notice(requests)
        position = max(len(request.origin_input_ids) + len(request.output_ids) for request in requests)
        plain = frozenset(row for row, request in enumerate(requests) if relaxed(request))
        this = Round(self.served(requests), position, plain)
        room = 0 if plain and (len(plain) == this.size or not self.mixes) else widths[-1]
        self.round = UnderWay(list(requests), this, widths, room, began=time.perf_counter(), before=self._before)
        self._before = self.round
        self._unfinished.append(self.round)
        self.round.limit = self._decide(lambda: self.policy.begin(this, room))
        this.resting = self.round.limit == 0
        self.round.beside_ms = this.decide_ms
        return self.round.limit

    def first(self, requests: Sequence[Any]) -> int:
        """How many levels to draft, or to verify of the first alone, which is there already; 0 verifies none."""
        assert self.round is not None
        if not self.round.limit:
            return 0
        self.round.first = [served.first for served in self.served(requests)]
        return self.deepen(self.round.first_level()) if self.policy.asks else self.round.limit

    def deepen(self, level: Packed) -> int:
        """How many levels to have in all, now that one more is there."""
        assert self.round is not None
        this = self.round.this
        self.round.drafted.append(level)
        this.levels.append(level[:, LEVEL])
        return self._decide(lambda: self.policy.deepen(this))

    def siblings(self, gamma: int, allowed: Sequence[int]) -> int:
        """How many of ``allowed`` to verify of every request, beside ``gamma`` levels."""
        assert self.round is not None
        this, start = self.round.this, time.perf_counter()
        this.gamma = gamma
        count = self.ranks.agree(lambda: self.policy.common(this, allowed)) if len(allowed) > 1 else 0
        self.round.beside_ms += (took := 1e3 * (time.perf_counter() - start))
        this.decide_ms += took
        return count

    def interrupt(self) -> None:  # something other than a round comes next
        self._before = None

    def prefill(self, requests: int, tokens: int) -> bool:
        """Whether the draft should read the prompts, ``tokens`` in all, of ``requests`` that join those running."""
        size = requests + sum(not request.finished() for request in self._running)
        return bool(self.ranks.agree(lambda: self.policy.prefill(size, requests, tokens)))

    @contextmanager
    def reading(self, tokens: int) -> Iterator[None]:
        """Around the draft's reading of prompts of ``tokens`` in all."""
        start = self.stopwatch.mark()
        yield
        self._readings.append((tokens, start, self.stopwatch.mark()))

    def mark(self, point: str) -> None:
        """Note the time of a point in the round, once."""
        if self.round is not None and point not in self.round.marks:
            self.round.marks[point] = self.stopwatch.mark()

    def finish(self, correct: list[int]) -> UnderWay | None:
        """The oldest unfinished round, now that it is known how many drafted tokens were right of each request."""
        if not self._unfinished:
            return None
        ended = self._unfinished.popleft()
        this = ended.this
        if ended.first and not ended.drafted:
            ended.drafted.append(ended.first_level())
        ended.outcome(correct)

        def between(start: str, end: str) -> float | None:
            return self.stopwatch.ms(ended.marks.get(start), ended.marks.get(end))

        if (drafting := between("caught_up", "drafted")) is not None:
            this.draft_ms = max(0.0, drafting - (this.decide_ms - ended.beside_ms))
        this.verify_ms, this.extend_ms = between("chosen", "verified"), between("verified", "extended")
        took = between("begun", "caught_up") if this.caught_up else None
        drafted = (this.draft_ms,) if ended.limit else ()
        forwards = (this.verify_ms, *drafted, *(() if this.resting else (this.extend_ms,)))
        ended.device_ms = None if None in forwards else sum(filter(None, (*forwards, took)))
        if ended.before is not None and ended.before.device_ms is not None:
            elapsed = 1e3 * (ended.began - ended.before.began)
            this.before_ms = min(max(0.0, elapsed - ended.before.device_ms), HICCUP * ended.before.device_ms)
            this.after_rest = ended.before.limit == 0
        ended.before = None
        if self.ranks.decides:
            if took is not None:
                self.policy.caught_up(this.caught_up, took)
            self.policy.observe(this)
            self.metrics.add(this, self.policy.fallbacks)
            this.remember()
        return ended

    def _notice(self, requests: Sequence[Any]) -> None:
        """Tell the policy which requests have ended since the last round, and how long reading took."""
        for request in filter(lambda one: one.finished(), self._running):
            self.policy.ended(len(request.output_ids))
        self._running = list(requests)
        while self._readings and (took := self.stopwatch.ms(*self._readings[0][1:])) is not None:
            self.policy.caught_up(self._readings.popleft()[0], took)

    def _decide(self, ask: Callable[[], int]) -> int:
        """The largest width of the round within what ``ask`` says."""
        assert self.round is not None
        start = time.perf_counter()
        most = min(self.ranks.agree(ask), self.round.limit)
        self.round.this.decide_ms += 1e3 * (time.perf_counter() - start)
        return max(width for width in self.round.widths if width <= most)

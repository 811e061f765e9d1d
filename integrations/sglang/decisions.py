"""Between SGLang's round and a batch policy: asks on rank 0, tells all ranks, and reports what came of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from speckv.controller.cost import Costs
from speckv.controller.policies.batch import BatchPolicy, BatchRound
from speckv.controller.policies.batch_throughput import make_batch_policy
from speckv.integrations.runtime import Controller
from speckv.integrations.sglang.config import Config
from speckv.integrations.sglang.mailbox import Mailbox, Signal
from speckv.integrations.sglang.metrics import Metrics
from speckv.integrations.sglang.ranks import Ranks
from speckv.integrations.sglang.timing import Stopwatch

UNKNOWN: Signal = (1.0, 0.7)
"""Stands for a first token whose signals have not arrived: about the mean of the shipped training data."""


def build_policy(
    config: Config,
    controller: Controller | None,
    level: int,
    sizes: tuple[float, float],
    max_gamma: int,
    per_token: bool,
) -> BatchPolicy:
    """The policy that ``config`` asks for; ``sizes`` are the bytes of target and draft, to guess costs from."""
    return make_batch_policy(
        controller,
        config.objective,
        "token" if per_token else "step",
        level,
        Costs.from_sizes(*sizes),
        config.gamma,
        max_gamma,
        config.fallback_gamma,
    )


class Round:
    """One decode round under way."""

    def __init__(self, requests: Sequence[Any]) -> None:
        self.requests = requests
        self.outcome = BatchRound(len(requests))
        self.marks: dict[str, Any] = {}

    def add_signals(self, signals: Sequence[Signal]) -> None:
        """Signals of one more draft token, one per request."""
        if not self.outcome.entropies:
            self.outcome.entropies = [[] for _ in signals]
            self.outcome.confidences = [[] for _ in signals]
        for i, (entropy, confidence) in enumerate(signals):
            self.outcome.entropies[i].append(entropy)
            self.outcome.confidences[i].append(confidence)


class Decisions:
    """The policy as the workers see it."""

    def __init__(
        self, policy: BatchPolicy, ranks: Ranks, stopwatch: Stopwatch, mailbox: Mailbox, metrics: Metrics
    ) -> None:
        self.policy = policy
        self.ranks = ranks
        self.stopwatch = stopwatch
        self.mailbox = mailbox
        self.metrics = metrics
        self.round: Round | None = None
        self._unfinished: deque[Round] = deque()
        self._running: list[Any] = []
        self._readings: deque[tuple[int, Any, Any]] = deque()

    def begin(self, requests: Sequence[Any], behind: int, widths: Sequence[int]) -> int:
        """Start a round; the most tokens to draft in it, one of the ascending ``widths`` (0 leaves the draft alone)."""
        self.mailbox.collect()
        self._notice(requests)
        self.round = Round(list(requests))
        self._unfinished.append(self.round)
        previous = [self.mailbox.previous.get(request) for request in requests]
        wanted = self._decide(lambda: self.policy.begin(len(requests), behind, previous))
        chosen = max((width for width in widths if width <= wanted), default=0)
        self.round.outcome.active = chosen > 0
        return chosen

    def first(self, requests: Sequence[Any]) -> bool:
        """Whether to verify the first draft tokens, which are there already."""
        assert self.round is not None
        self.round.add_signals([self.mailbox.firsts.get(request, UNKNOWN) for request in requests])
        outcome = self.round.outcome
        return bool(self._decide(lambda: self.policy.first(outcome.entropies, outcome.confidences)))

    def more(self) -> bool:
        """Whether to draft another token for each request."""
        assert self.round is not None
        outcome = self.round.outcome
        return bool(self._decide(lambda: self.policy.more(outcome.entropies, outcome.confidences)))

    def warm(self, requests: int, rows: int) -> bool:
        """Whether the draft should read the prompts, ``rows`` in all, of ``requests`` that join those being decoded."""
        size = requests + sum(not request.finished() for request in self._running)
        return bool(self._decide(lambda: self.policy.warm(size, requests, rows)))

    @contextmanager
    def reading(self, rows: int) -> Iterator[None]:
        """Around the draft's reading of prompts of ``rows`` in all."""
        start = self.stopwatch.mark()
        yield
        self._readings.append((rows, start, self.stopwatch.mark()))

    def mark(self, point: str) -> None:
        """Note the time of a point in the round."""
        if self.round is not None:
            self.round.marks[point] = self.stopwatch.mark()

    def finish(self, accepted: list[int]) -> Sequence[Any]:
        """The oldest unfinished round's accepted draft tokens per request have reached the host; its requests."""
        if not self._unfinished:
            return ()
        round_ = self._unfinished.popleft()
        outcome, marks = round_.outcome, round_.marks
        outcome.accepted = accepted
        spans = [
            self.stopwatch.ms(marks.get(start), marks.get(end))
            for start, end in (
                ("caught_up", "drafted"),
                ("drafted", "verified"),
                ("verified", "extended"),
                ("begun", "caught_up"),
            )
        ]
        outcome.timed = None not in spans
        draft, verify, extend, catch_up = (span or 0.0 for span in spans)
        outcome.draft_ms, outcome.verify_ms = max(0.0, draft - outcome.decide_ms), verify
        outcome.extend_ms = extend
        if self.ranks.decides:
            if outcome.timed and outcome.catch_up:
                self.policy.read(outcome.catch_up, catch_up)
            self.policy.observe(outcome)
            self.metrics.add(outcome, self.policy.fallbacks)
        return round_.requests

    def _notice(self, requests: Sequence[Any]) -> None:
        """Tell the policy which requests have ended since the last round, and how long reading took."""
        for request in self._running:
            if request.finished():
                self.policy.ended(len(request.output_ids))
        self._running = list(requests)
        while self._readings and (took := self.stopwatch.ms(*self._readings[0][1:])) is not None:
            self.policy.read(self._readings.popleft()[0], took)

    def _decide(self, ask: Callable[[], int]) -> int:
        start = time.perf_counter()
        answer = self.ranks.agree(ask)
        if self.round is not None:
            self.round.outcome.decide_ms += 1e3 * (time.perf_counter() - start)
        return answer

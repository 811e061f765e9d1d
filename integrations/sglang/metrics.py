"""What the server tells about its rounds: Prometheus series on SGLang's /metrics, and a log line now and then."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from speckv.controller.policy import SIBLINGS, Round

logger = logging.getLogger("speckv")


class Metrics:
    """Counts rounds. ``publish`` adds the Prometheus series, which need ``--enable-metrics``."""

    def __init__(self, publish: bool, labels: dict[str, str], log_every: int) -> None:
        self.log_every = log_every
        self.rounds = self.drafted = self.accepted = self.fallbacks = 0
        self.decide_ms = 0.0
        self._last: int | None = None
        self._series = _Series(labels) if publish else None
        self._since: Counter[int] = Counter()

    def add(self, this: Round, fallbacks: int) -> None:
        """Count a finished round; ``fallbacks`` is the policy's running total."""
        if self._series is not None:
            switched = self._last is not None and this.gamma != self._last
            self._series.add(this, switched, fallbacks - self.fallbacks)
        self._last, self.fallbacks = this.gamma, fallbacks
        self.rounds += 1
        self.drafted += this.verified
        self.accepted += this.emitted - this.size
        self.decide_ms += this.decide_ms
        self._since[this.gamma] += 1
        if self.rounds % self.log_every == 0:
            self._log()

    def _log(self) -> None:
        logger.info(
            "speckv: %d rounds; γ of the last %d: %s; accepted %d of %d drafted tokens; decisions %.3f ms a round",
            self.rounds,
            self.log_every,
            " ".join(f"{gamma}×{self._since[gamma]}" for gamma in sorted(self._since)),
            self.accepted,
            self.drafted,
            self.decide_ms / self.rounds,
        )
        self._since.clear()


class _Series:
    """The Prometheus side. SGLang collects over processes, so what is made here reaches its /metrics."""

    def __init__(self, labels: dict[str, str]) -> None:
        from prometheus_client import Counter as Count
        from prometheus_client import Gauge

        names = list(labels)

        def count(name: str, text: str, *more: str) -> Any:
            made = Count(f"speckv:{name}", text, [*names, *more])
            return made if more else made.labels(**labels)

        self._labels = labels

        def latest(name: str, text: str) -> Any:
            return Gauge(f"speckv:{name}", text, names, multiprocess_mode="mostrecent").labels(**labels)

        self._labels = labels
        self._gamma = latest("gamma", "Levels drafted and verified in the last round")
        self._width = latest("verify_width", "Tokens of a request that the target verified in the last round")
        self._rounds = count("rounds", "Rounds by number of levels", "gamma")
        self._positions = count("verified_positions", "Positions that the target computed in rounds")
        self._drafted = count("drafted_tokens", "Draft tokens that were verified, siblings among them")
        self._accepted = count("accepted_tokens", "Draft tokens that were accepted")
        self._offered = count("siblings_offered", "Siblings that the draft offered beside verified levels")
        self._siblings = count("siblings_verified", "Siblings that were verified")
        self._hits = count("siblings_accepted", "Siblings that were accepted")
        self._wasted = count("wasted_tokens", "Draft tokens that were verified in vain")
        self._seconds = count("decision_seconds", "Time spent on deciding")
        self._switches = count("switches", "Rounds with another number of draft tokens than the one before")
        self._resumes = count("resumes", "Times the draft's cache was brought up to date")
        self._fallbacks = count("fallbacks", "Decisions without usable signals")

    def add(self, this: Round, switched: bool, fallbacks: int) -> None:
        accepted = this.emitted - this.size
        self._gamma.set(this.gamma)
        self._width.set((this.size + this.verified) / this.size)
        self._rounds.labels(**self._labels, gamma=str(this.gamma)).inc()
        self._positions.inc(this.size + this.verified)
        self._drafted.inc(this.verified)
        self._accepted.inc(accepted)
        self._offered.inc(this.gamma * this.size * SIBLINGS)
        self._siblings.inc(this.offered_siblings)
        self._hits.inc(sum(this.sibling_hits))
        self._wasted.inc(this.verified - accepted)
        self._seconds.inc(this.decide_ms / 1e3)
        self._switches.inc(switched)
        self._resumes.inc(this.caught_up > 0)
        self._fallbacks.inc(fallbacks)

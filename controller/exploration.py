"""What is done only to learn: drafting where it does not seem to pay, and a round without where it does."""

from __future__ import annotations

FIRST, LAST = 8, 128
"""After how many rounds of one kind to try the other, doubled every time that this was in vain."""

SHARE = 0.02
"""Most of the time that may go into bringing the draft up to date for nothing but a trial."""

CLEARLY = 1.1
"""A trial has paid if it beat plain decoding by this factor: one lucky token where it can just break even has not."""


class Exploration:
    """Of one batch size. A plain round is there to time it; all else that a policy must know it learns by drafting."""

    def __init__(self) -> None:
        self._idle = self._busy = 0
        self._idle_ms = 0.0
        self._probe_after = self._plain_after = FIRST

    def drafts(self, pays: bool, catch_up_ms: float) -> bool:
        """Whether to draft in a round where that ``pays`` or not, the draft's catching up taking so long."""
        if pays:
            return self._busy < self._plain_after
        return self._idle >= self._probe_after and catch_up_ms <= SHARE * self._idle_ms

    def learn(self, drafted: bool, ms: float, speedup: float) -> None:
        """A round of ``ms`` has ended, ``speedup`` times as fast as plain decoding."""
        if drafted:
            if speedup >= CLEARLY:
                self._probe_after = FIRST
            elif self._idle >= self._probe_after:
                self._probe_after = min(2 * self._probe_after, LAST)
            self._busy += 1
            self._idle, self._idle_ms = 0, 0.0
        else:
            if self._busy >= self._plain_after:
                self._plain_after = min(2 * self._plain_after, LAST)
            self._busy = 0
            self._idle += 1
            self._idle_ms += ms

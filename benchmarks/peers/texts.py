"""What peers share whose state, or part of it, lives for one text only: how to tell that a new one begins."""

from __future__ import annotations

from abc import abstractmethod

from speckv.controller.policy import Policy


class TextPolicy(Policy):
    """Base of policies that forget at the start of a text what a framework rebuilds per call.

    ``room`` only shrinks within a text, so room that grows is another text. A loop that knows better calls
    ``new_text`` itself; calling it twice does no harm. What is told by neither is a text that starts with less
    room than the one before it had left.
    """

    def __init__(self) -> None:
        self._room = -1

    def begin(self, room: int) -> int:
        if room > self._room:
            self.new_text()
        self._room = room
        return min(self.longest(), room)

    @abstractmethod
    def new_text(self) -> None:
        """Forget what does not outlive a text."""

    @abstractmethod
    def longest(self) -> int:
        """The most tokens the policy would draft this round if there were room for any number."""

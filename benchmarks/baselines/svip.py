"""SVIP: stop where the draft's entropy bounds the acceptance probability too low."""

from __future__ import annotations

from speckv.controller.policy import Policy, Round

SCALE = 0.15
THRESHOLD = 0.3
LONGEST = 40


class SVIP(Policy):
    """Stops after a token with √(c · H) > h, where 1 − √(c · H) estimates a lower bound on its acceptance.

    Source: SVIP, arXiv 2411.18462. Acceptance is 1 − TV(q, p), Pinsker's inequality bounds TV by the square
    root of half the divergence of draft q and target p, and their cross-entropy is taken to be a constant
    multiple of the draft's entropy H (nats), which leaves the rule above. The constants are those of the
    authors' code (github.com/Geralt-Targaryen/SVIP, ``vanilla-sd/eval_specbench.py`` and ``config.json``):
    c = 0.15, h = 0.3, at most 40 tokens, so a token with H > 0.6 is the last. It is judged after being
    drafted, and verified.

    AdaEDL (arXiv 2410.18351) stops by the same form, 1 − √(0.2 · H) < λ, with a λ that follows the acceptance
    rate. It is not here: of its constants we could confirm only the 0.2, not the start of λ and its steps.
    """

    per_level = True

    def __init__(self, scale: float = SCALE, threshold: float = THRESHOLD, longest: int = LONGEST) -> None:
        self.scale = scale
        self.threshold = threshold
        self.longest = longest

    def begin(self, this: Round, room: int) -> int:
        return min(self.longest, room)

    def deepen(self, this: Round) -> int:
        # Squared: an entropy that rounding made a little negative has no root.
        return len(this.levels) if self.scale * this.levels[-1][0, 0] > self.threshold**2 else self.longest

"""A bandit over the fixed γ: what one can learn without looking at a single signal."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from speckv.controller.policy import Policy, Round

ARMS = range(17)


@dataclass(slots=True)
class Arm:
    """What came of the rounds that drafted so many tokens."""

    rounds: int = 0
    tokens: float = 0.0
    squares: float = 0.0
    ms: float = 0.0

    def sample(self, gamma: int, noise: float) -> float:
        """Tokens per ms if the mean number of tokens is ``noise`` standard errors above the observed one."""
        mean = self.tokens / self.rounds
        spread = max(0.0, self.squares - self.tokens * mean)
        variance = (spread + gamma**2 / 4) / (self.rounds + 1)
        return (mean + noise * math.sqrt(variance / self.rounds)) * self.rounds / self.ms


class Bandit(Policy):
    """Thompson sampling over γ = 0 … 16, each worth its Σ tokens / Σ ms.

    The arms and the reward are those of bandits for speculation (BanditSpec, arXiv 2505.15141), except that
    the reward is tokens per time: rounds are a renewal-reward process, so the long-run speed of an arm is the
    ratio of the means, not the mean of ratios. Each arm is tried once; after that the arm is played whose
    draw is best: the mean of its tokens plus a normal draw times its standard error, over its mean time.
    The variance counts one round more, of γ² / 4, the largest that 1 … γ + 1 tokens can have, so that a few equal
    rounds do not end the exploration.

    Thompson sampling rather than an upper confidence bound, because a range of 17 tokens makes UCB1's bonus
    outweigh the differences for thousands of rounds: in simulated pairs it lost more than Thompson sampling did
    at 500 and at 2,000 rounds, as did UCB-V and UCB1-tuned. The generator is seeded, so a replay repeats.

    Of a batch all requests share an arm, whose tokens are those of the mean request.

    It learns from finished rounds only, except those whose times hold a prefill, and across sequences. A round
    counts for the γ it drafted, which the end of the sequence may have cut.
    """

    asks = False

    def __init__(self, seed: int = 0) -> None:
        self.arms = [Arm() for _ in ARMS]
        self._draws = random.Random(seed)

    def begin(self, this: Round, room: int) -> int:
        fitting = [gamma for gamma in ARMS if gamma <= room]
        for gamma in fitting:
            if not self.arms[gamma].rounds:
                return gamma
        return max(fitting, key=lambda gamma: self.arms[gamma].sample(gamma, self._draws.gauss(0.0, 1.0)))

    def observe(self, this: Round) -> None:
        ms = (this.draft_ms or 0.0) + (this.verify_ms or 0.0)
        if this.draft_prefill or this.verify_prefill or this.gamma not in ARMS or ms <= 0.0:
            return
        tokens = this.emitted / this.size
        arm = self.arms[this.gamma]
        arm.rounds += 1
        arm.tokens += tokens
        arm.squares += tokens**2
        arm.ms += ms

"""Play a policy on traces: exactly what it would have drafted, had accepted and taken, given the costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from speckv.benchmarks.replay.regimes import Regime
from speckv.benchmarks.traces import Trace
from speckv.controller.policy import Policy, Round


@dataclass
class Played:
    """One prompt under one policy: tokens, milliseconds, and the rounds' drafted and accepted tokens."""

    prompt_id: str
    task: str
    tokens: int
    ms: float
    drafted: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)


def play(policy: Policy, traces: Iterable[Trace], regime: Regime, tokens: int) -> list[Played]:
    """``policy`` on one text after the other, keeping what it learns; each had at most ``tokens`` to say."""
    return [_play_one(policy, trace, regime, tokens) for trace in traces]


def _play_one(policy: Policy, trace: Trace, regime: Regime, tokens: int) -> Played:
    played = Played(trace.prompt_id, trace.task, trace.tokens, 0.0)
    for this in rounds(policy, trace, tokens, regime):
        played.ms += this.draft_ms + this.verify_ms
        played.drafted.append(this.drafted)
        played.accepted.append(this.accepted)
    return played


def rounds(policy: Policy, trace: Trace, tokens: int, regime: Regime | None = None) -> Iterator[Round]:
    """The finished rounds of ``policy`` on one text that had at most ``tokens`` to say, timed as ``regime`` has it."""
    policy.start()
    place = 0
    while place < trace.tokens:
        this = Round(position=trace.prompt_tokens + place)
        limit = min(policy.begin(tokens - place - 1), int(trace.lengths[place]))
        if limit > 0:
            _draft(policy, this, trace.entropies[place].tolist(), trace.confidences[place].tolist(), limit)
        this.accepted = min(int(trace.matches[place]), this.drafted)
        this.emitted = min(this.accepted + 1, trace.tokens - place)
        if regime is not None:
            this.draft_ms = regime.draft_ms * this.drafted
            this.verify_ms = regime.verify_ms[this.drafted]
        policy.observe(this)
        yield this
        place += this.emitted


def _draft(policy: Policy, this: Round, entropies: Sequence[float], confidences: Sequence[float], limit: int) -> None:
    """Fill ``this`` with drafted tokens' signals; the policy is shown no more than was drafted."""
    if not policy.per_token:
        this.entropies, this.confidences = list(entropies[:limit]), list(confidences[:limit])
        return
    while this.drafted < limit:
        this.entropies.append(entropies[this.drafted])
        this.confidences.append(confidences[this.drafted])
        if this.drafted < limit and not policy.more(tuple(this.entropies), tuple(this.confidences)):
            break


def clairvoyant(traces: Iterable[Trace], regime: Regime, tokens: int) -> list[Played]:
    """The least time any choice of γ could take: the shortest path over positions of each text.

    From position p a step of γ drafted tokens costs t(γ) and leads to p + min(γ, matches) + 1.
    """
    return [_shortest(trace, regime, tokens) for trace in traces]


def _shortest(trace: Trace, regime: Regime, tokens: int) -> Played:
    count = trace.tokens
    togo, choice = [0.0] * (count + 1), [0] * count
    for place in reversed(range(count)):
        togo[place] = math.inf
        # A token beyond those that match costs and brings nothing.
        for gamma in range(min(int(trace.matches[place]), tokens - place - 1) + 1):
            ms = regime.step_ms(gamma) + togo[min(place + gamma + 1, count)]
            if ms < togo[place]:
                togo[place], choice[place] = ms, gamma
    played = Played(trace.prompt_id, trace.task, count, togo[0])
    place = 0
    while place < count:
        played.drafted.append(choice[place])
        played.accepted.append(choice[place])
        place += choice[place] + 1
    return played

"""What no policy can beat: the least time of any choice, made with the whole sequence known. Of one request."""

from __future__ import annotations

import math
from collections.abc import Sequence

from speckv.benchmarks.replay.engine import Played
from speckv.benchmarks.replay.positions import Positions
from speckv.benchmarks.replay.regimes import Regime
from speckv.controller.policy import BEST


def clairvoyant(positions: Positions, regime: Regime, order: Sequence[int], siblings: bool) -> Played:
    """The shortest path over the positions of each sequence, by chains or with ``siblings``.

    From p a chain of γ tokens that match takes t(γ) and leads to p + γ + 1. Where the first token that does not match
    has a right sibling, it may be drafted for that: one level more, and one row that leads to p + matches + 2.
    """
    draft_ms, verify = regime.draft_ms(1), regime.verify_table(1)
    played = Played()
    for sequence in order:
        start, end = int(positions.starts[sequence]), int(positions.ends[sequence])
        togo = [0.0] * (end - start + 1)
        step: list[tuple[int, float, int, int]] = [(0, 0.0, 0, 0)] * (end - start)
        for place in reversed(range(end - start)):
            at, least = start + place, math.inf
            matches = min(int(positions.matches[at]), int(positions.room[at]))
            shapes = [(gamma + 1, gamma * draft_ms + float(verify[1 + gamma]), gamma) for gamma in range(matches + 1)]
            rank = int(positions.ranks[at + matches]) if at + matches < end else 0
            if siblings and 0 < rank < BEST and matches < positions.room[at]:
                shapes.append((matches + 2, (matches + 1) * draft_ms + float(verify[2 + matches]), matches + 1))
            for emitted, ms, levels in shapes:
                after = min(place + emitted, end - start)
                if ms + togo[after] < least:
                    least, step[place] = ms + togo[after], (after - place, ms, levels, emitted - 1)
            togo[place] = least
        place = 0
        while place < end - start:
            emitted, ms, levels, verified = step[place]
            played.add([sequence], [emitted], ms, levels, verified)
            place += emitted
    return played

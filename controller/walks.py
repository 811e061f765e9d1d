"""Examples for the survival head: rounds of random lengths, walked over sequences from every position of which is known
what the draft would propose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speckv.controller.features import FURTHEST, LEAST_CONFIDENCE, RecentAcceptance

Array = NDArray[np.float32]
WALKS = (2.0, 4.0, 6.0, 10.0)
"""Mean drafted tokens a round (about) of the walks over every sequence."""
DEEPEST = 12
"""Largest ``drafted`` of an example."""
HOPELESS = np.log(0.02)
"""Prefixes that the draft itself gives less than this to be right throughout teach nothing that is ever asked."""

DRAFTED, FURTHER = np.array(
    [(k, e) for k in range(DEEPEST + 1) for e in range(FURTHEST + 1) if k + e], dtype=np.int64
).T
"""Every (k, e) that is asked in a round, (Q,) each; that nothing survives from nothing is no question."""


@dataclass(frozen=True)
class TracedSequence:
    """A sequence of N tokens, and the draft's run of up to D tokens from each of its positions.

    ``matches`` (N,) counts the first tokens of each run that the target would accept, ``lengths`` (N,) all of its
    tokens; ``entropies`` (nats) and ``confidences`` are (N, D), of any value beyond the length. ``level`` is the
    target's compression (0, 1, 2).
    """

    prompt_id: str
    level: int
    matches: NDArray[np.int64]
    lengths: NDArray[np.int64]
    entropies: Array
    confidences: Array


def survival_data(
    sequences: Sequence[TracedSequence], seed: int = 0
) -> tuple[Array, NDArray[np.int64], NDArray[np.str_]]:
    """SURVIVAL_FEATURES (n, 8), whether so many tokens were accepted (n,), and the prompt's id (n,).

    In every round of every walk all DRAFTED and FURTHER are asked as far as the run goes, until it is HOPELESS.
    """
    generator = np.random.default_rng(seed)
    parts = [_examples(sequence, generator) for sequence in sequences]
    features, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return features, labels, np.repeat([sequence.prompt_id for sequence in sequences], [len(part[1]) for part in parts])


def walk(sequence: TracedSequence, mean: float, generator: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """(position, accepted, drafted) of rounds over ``sequence`` that draft 1 + an exponential number of tokens."""
    place = 0
    while place < len(sequence.matches):
        drafted = min(int(sequence.lengths[place]), 1 + int(generator.exponential(mean)))
        accepted = min(int(sequence.matches[place]), drafted)
        yield place, accepted, drafted
        place += accepted + 1


def _examples(sequence: TracedSequence, generator: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
    places, recents = [], []
    for mean in WALKS:
        recent = RecentAcceptance()
        for place, accepted, drafted in walk(sequence, mean, generator):
            places.append(place)
            recents.append(recent.values)
            recent.add(accepted, drafted)
    prefixes = _prefixes(sequence)[places]  # (R, k, 3)
    lengths, matches = sequence.lengths[places], sequence.matches[places]
    deep = np.minimum(DRAFTED, prefixes.shape[1] - 1)
    asked = (lengths[:, None] >= DRAFTED + FURTHER) & (prefixes[:, deep, 1] >= HOPELESS)
    rounds, questions = np.nonzero(asked)
    drafted, further = DRAFTED[questions], FURTHER[questions]
    level = np.full(len(rounds), sequence.level)
    features = (prefixes[rounds, drafted], np.array(recents)[rounds], np.stack((level, drafted, further), axis=1))
    return np.concatenate(features, axis=1, dtype=np.float32), (matches[rounds] >= drafted + further).astype(np.int64)


def _prefixes(sequence: TracedSequence) -> NDArray[np.float64]:
    """(N, D + 1, 3): mean entropy, sum of ln confidence and largest entropy of the first k = 0 … D tokens of a run."""
    inside = np.arange(sequence.entropies.shape[1]) < sequence.lengths[:, None]
    entropies = np.where(inside, sequence.entropies, 0.0)
    logs = np.log(np.maximum(np.where(inside, sequence.confidences, 1.0), LEAST_CONFIDENCE))
    found = np.zeros((len(entropies), entropies.shape[1] + 1, 3))
    found[:, 1:, 0] = np.cumsum(entropies, axis=1) / np.arange(1, found.shape[1])
    found[:, 1:, 1] = np.cumsum(logs, axis=1)
    found[:, 1:, 2] = np.maximum.accumulate(entropies, axis=1)
    return found

"""What the shipped controller, taught by a separate draft, makes of a head: as it is, corrected, rescaled."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from speckv.benchmarks.eagle3.head import STEPS, Head
from speckv.benchmarks.eagle3.training import Said, Teacher
from speckv.controller.arrays import Floats
from speckv.controller.features import LEAST_CONFIDENCE, RecentAcceptance
from speckv.controller.policies.correction import Correction
from speckv.integrations.runtime import Controller
from speckv.integrations.signals import LEVEL, pack

Levels = NDArray[np.float32]
"""(STEPS, 1 + BEST): a round's signals by depth."""

LEAST = 1e-3
"""Of a probability that is judged: a logarithm of it is finite."""


def judged(target: Any, head: Head, said: Sequence[Said], controller: Controller) -> dict[str, Any]:
    """Probabilities that depth j = 1 … STEPS is reached beside what came of it.

    They are as known ``before`` level j is drafted, and ``after``, by its own signals. ``corrected`` are as the policy
    corrects them, ``relative`` with entropies as parts of the largest that the head's vocabulary allows, which is to
    say, stretched to that of the target's; ``both`` are both. Log losses are in nats a depth.
    """
    stretch = {"shipped": 1.0, "relative": math.log(target.config.vocab_size) / math.log(len(head.known))}
    as_said, corrections = Correction(), {"corrected": Correction(), "both": Correction()}
    outcomes: list[NDArray[np.bool_]] = []
    found: dict[str, dict[str, list[list[float]]]] = {when: defaultdict(list) for when in ("before", "after")}
    for sequence in said:
        recent = RecentAcceptance()
        for levels, accepted in _rounds(target, head, sequence):
            outcomes.append(np.arange(1, STEPS + 1) <= accepted)
            for (name, scale), (corrected, correction) in zip(stretch.items(), corrections.items(), strict=True):
                asked = _answers(controller, levels, recent, scale)
                for of, totals in ((name, as_said.totals), (corrected, correction.totals)):
                    known = [totals(answers, drafted) for drafted, answers in asked.items()]
                    found["before"][of].append([known[0][0], *(after[1] for after in known[1:-1])])
                    found["after"][of].append([after[0] for after in known[1:]])
                correction.learn(asked, [accepted], STEPS)
            recent.add(accepted, STEPS)
    truth = np.array(outcomes)
    for by in found.values():
        by["mean"] = [truth.mean(axis=0).tolist()] * len(truth)
    return {
        "rounds": len(truth),
        "reached": truth.mean(axis=0).tolist(),
        "predicted": {when: {of: np.mean(p, axis=0).tolist() for of, p in by.items()} for when, by in found.items()},
        "log_loss": {when: {of: _loss(np.array(p), truth) for of, p in by.items()} for when, by in found.items()},
        "correction": {name: one.values for name, one in corrections.items()},
    }


def _loss(p: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    p = p.clip(LEAST, 1 - LEAST)
    return float(-np.where(truth, np.log(p), np.log(1 - p)).mean())


@torch.inference_mode()
def _rounds(target: Any, head: Head, sequence: Said) -> Iterator[tuple[Levels, int]]:
    """Of rounds of STEPS levels through what the target said: the signals, and how many were right."""
    teacher = Teacher(target, head, [sequence])
    (lesson,) = teacher.lessons([0])
    drafted = head.drafted(teacher.embeds(lesson.ids[None, 1:]), lesson.features[None].float())
    packed = [pack(None, logits[0]) for logits in drafted]
    at = max(0, sequence.start - 2)
    while at < len(lesson.ids) - STEPS - 1:
        levels = torch.stack([level[at] for level in packed])
        right = head.known[levels[:, 0].long()] == lesson.ids[at + 2 : at + 2 + STEPS]
        accepted = int(right.long().cumprod(0).sum())
        yield levels[:, LEVEL].numpy(), accepted
        at += accepted + 1


def _answers(controller: Controller, levels: Levels, recent: RecentAcceptance, stretch: float) -> dict[int, Floats]:
    """By how many levels were drafted, what the policy would be told: P(accepted ≥ j), (1, K)."""
    found: dict[int, Floats] = {}
    for drafted in range(STEPS + 1):
        row = np.zeros((1, 7), dtype=np.float32)
        if drafted:
            entropies, confidences = stretch * levels[:drafted, 0], levels[:drafted, 1]
            surprise = np.log(np.maximum(confidences, LEAST_CONFIDENCE)).sum()
            row[0, :3] = entropies.mean(), surprise, entropies.max()
        row[0, 3:] = *recent.values, 0, drafted
        found[drafted] = controller.survival(row, (0, 1) if drafted else (1,)).copy()
    return found

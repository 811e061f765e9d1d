"""What the shipped controller, taught by a separate draft, makes of a head: as it is, corrected, rescaled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from speckv.benchmarks.eagle3.head import STEPS, Head
from speckv.benchmarks.eagle3.training import Said, Teacher
from speckv.controller.estimates import Ratio
from speckv.controller.features import LEAST_CONFIDENCE, RecentAcceptance
from speckv.controller.policies.throughput import CALM, DOUBT
from speckv.integrations.runtime import Controller
from speckv.integrations.signals import LEVEL, pack

Levels = NDArray[np.float32]
"""(STEPS, 1 + BEST): a round's signals by depth."""

LEAST = 1e-3
"""Of a probability that is judged: a logarithm of it is finite."""


def judged(target: Any, head: Head, said: Sequence[Said], controller: Controller) -> dict[str, Any]:
    """Probabilities that depth j = 1 … STEPS is reached, as known at depth j − 1, beside what came of it.

    ``corrected`` are by the policy's running ratio, ``relative`` with entropies as parts of the largest that the
    head's vocabulary allows, which is to say, stretched to that of the target's. Log losses are in nats a depth.
    """
    stretch = math.log(target.config.vocab_size) / math.log(len(head.known))
    outcomes: list[NDArray[np.bool_]] = []
    found: dict[str, list[NDArray[np.float64]]] = {"shipped": [], "corrected": [], "relative": [], "both": []}
    corrections = {name: Ratio(1.0, DOUBT, CALM) for name in ("corrected", "both")}
    for text in said:
        recent = RecentAcceptance()
        for levels, accepted in _rounds(target, head, text):
            reached = np.arange(1, STEPS + 1) <= accepted
            outcomes.append(reached)
            for name in ("shipped", "relative"):
                asked = _survivals(controller, levels, recent, stretch if name == "relative" else 1.0)
                after = "corrected" if name == "shipped" else "both"
                found[name].append(asked)
                found[after].append(np.minimum(asked * corrections[after].value, 1.0))
                corrections[after].add(float(reached.sum()), float(asked.sum()))
            recent.add(accepted, STEPS)
    truth = np.array(outcomes)
    found["mean"] = [truth.mean(axis=0)] * len(truth)
    return {
        "rounds": len(truth),
        "reached": truth.mean(axis=0).tolist(),
        "predicted": {name: np.mean(rows, axis=0).tolist() for name, rows in found.items()},
        "log_loss": {name: _loss(np.array(rows), truth) for name, rows in found.items()},
        "correction": {name: ratio.value for name, ratio in corrections.items()},
    }


def _loss(p: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    p = p.clip(LEAST, 1 - LEAST)
    return float(-np.where(truth, np.log(p), np.log(1 - p)).mean())


@torch.inference_mode()
def _rounds(target: Any, head: Head, text: Said) -> Iterator[tuple[Levels, int]]:
    """Of rounds of STEPS levels through what the target said: the signals, and how many were right."""
    teacher = Teacher(target, head, [text])
    (lesson,) = teacher.lessons([0])
    drafted = head.drafted(teacher.embeds(lesson.ids[None, 1:]), lesson.features[None].float())
    packed = [pack(None, logits[0]) for logits in drafted]
    at = max(0, text.start - 2)
    while at < len(lesson.ids) - STEPS - 1:
        levels = torch.stack([level[at] for level in packed])
        right = head.known[levels[:, 0].long()] == lesson.ids[at + 2 : at + 2 + STEPS]
        accepted = int(right.long().cumprod(0).sum())
        yield levels[:, LEVEL].numpy(), accepted
        at += accepted + 1


def _survivals(controller: Controller, levels: Levels, recent: RecentAcceptance, stretch: float) -> NDArray[np.float64]:
    """P(accepted ≥ j) by j, each from the j − 1 levels before."""
    rows = np.zeros((STEPS, 7), dtype=np.float32)
    for drafted in range(STEPS):
        if drafted:
            entropies, confidences = stretch * levels[:drafted, 0], levels[:drafted, 1]
            surprise = np.log(np.maximum(confidences, LEAST_CONFIDENCE)).sum()
            rows[drafted, :3] = entropies.mean(), surprise, entropies.max()
        rows[drafted, 3:] = *recent.values, 0, drafted
    return controller.survival(rows, (1,))[:, 0].astype(np.float64)

"""Step records and sequences that exist only as numbers: what tells whether a token is accepted is known."""

from __future__ import annotations

import math
import random

import numpy as np

from speckv.benchmarks.collect.steps import Step, make_row
from speckv.controller.records import Row
from speckv.controller.walks import TracedSequence


def make_synthetic_rows(prompts: int, steps: int = 8, seed: int = 0) -> list[Row]:
    """Step records in which a token is accepted with its own confidence as probability.

    Prompts differ in ease, so that a round's signals tell something about the next.
    """
    draws = random.Random(seed)
    rows = []
    for number in range(prompts):
        gamma = (2, 4, 6, 8)[number % 4]
        run = {
            "compression": ("fp16", "int8", "nf4")[number % 3],
            "gamma": gamma,
            "task": ("code", "math", "chat", "summarization")[number % 4],
            "prompt_id": f"prompt-{number:02d}",
            "batch": 1,
            "target": "a-target",
            "draft": "a-draft",
            "target_dtype": "float32",
            "draft_dtype": "float32",
            "versions": "{}",
        }
        ease = math.exp(draws.uniform(-1.0, 3.0))
        for step in range(steps):
            this = Step(10 + step, [], [], 0, 1, draft_ms=3.0 * gamma, verify_ms=50.0 + gamma)
            for _ in range(gamma):
                confidence = draws.betavariate(ease, 1.0)
                this.confidences.append(confidence)
                this.entropies.append(3.0 * (1.0 - confidence) + 0.1 * draws.random())
            while this.accepted < gamma and draws.random() < this.confidences[this.accepted]:
                this.accepted += 1
            this.emitted = this.accepted + 1
            rows.append(make_row(this, run, step))
    return rows


def make_synthetic_sequences(prompts: int, tokens: int = 24, depth: int = 12, seed: int = 0) -> list[TracedSequence]:
    """Texts in which a token is accepted with its own confidence as probability; prompts differ in ease."""
    draws = np.random.default_rng(seed)
    sequences = []
    for number in range(prompts):
        confidences = draws.beta(np.exp(draws.uniform(-1.0, 3.0)), 1.0, (tokens, depth)).astype(np.float32)
        matches = (draws.random((tokens, depth)) < confidences).cumprod(axis=1).sum(axis=1)
        lengths = np.minimum(depth, tokens - np.arange(tokens))
        entropies = (3 * (1 - confidences)).astype(np.float32)
        matches = np.minimum(matches, lengths)
        sequences.append(TracedSequence(f"prompt-{number:02d}", number % 3, matches, lengths, entropies, confidences))
    return sequences

"""One pair in transformers, timed in every mode on one prompt after the other."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
import transformers

from speckv.benchmarks.generation import PLAIN, STOCK, Modes
from speckv.benchmarks.profile import chat_inputs
from speckv.benchmarks.prompts import Prompt
from speckv.integrations.models import load_pair
from speckv.integrations.transformers.calibrate import calibrate, remember, remembered

MODES = (PLAIN, "fixed-2", "fixed-4", "fixed-8", STOCK, "paper", "speckv")
WARM_UP_TOKENS = 8


class Arrivals:
    """A streamer that notes when tokens arrive, as a reader of the stream would see them."""

    def __init__(self) -> None:
        self.started = perf_counter()
        self.times: list[float] = []
        self.prompt_seen = False

    def put(self, value: Any) -> None:
        if not self.prompt_seen:  # generate() sends the prompt first
            self.prompt_seen = True
            return
        self.times.append((perf_counter() - self.started) * 1e3)

    def end(self) -> None:
        pass


class Runner:
    """A loaded pair; a costs file is calibrated first where none is remembered, as a user would."""

    def __init__(self, pair: str, compression: str, draft_compression: str, tokens: int, threads: int) -> None:
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.target, draft, self.tokenizer = load_pair(pair, compression, draft_compression)
        costs = remembered(self.target, draft)
        if costs is None:
            costs = calibrate(self.target, draft)
            remember(self.target, draft, costs)
        self.costs = {"draft_ms": costs.draft[1], "verify_ms": {str(rows): ms for rows, ms in costs.verify.items()}}
        self.modes, self.tokens = Modes(self.target, draft), tokens
        warm_up = chat_inputs(self.tokenizer, "Hello").to(self.target.device)
        for mode in MODES:
            self.modes.generate(mode, warm_up, WARM_UP_TOKENS)

    def run(self, prompt: Prompt, number: int) -> dict[str, Any]:
        """Every mode on ``prompt``, another one first each time; what is stored of it."""
        inputs = chat_inputs(self.tokenizer, prompt.text).to(self.target.device)
        shift = number % len(MODES)
        found: dict[str, dict[str, Any]] = {}
        said: dict[str, list[int]] = {}
        for mode in (*MODES[shift:], *MODES[:shift]):
            arrivals = Arrivals()
            generation = self.modes.generate(mode, inputs, self.tokens, streamer=arrivals)
            said[mode] = generation.tokens
            stats = generation.stats
            found[mode] = {"tokens": len(generation.tokens), "ms": generation.seconds * 1e3}
            found[mode] |= {"arrivals_ms": [round(at, 2) for at in arrivals.times]}
            found[mode] |= {"rounds": stats.rounds, "drafted": stats.drafted, "accepted": stats.accepted}
        for mode, one in found.items():
            one["identical"] = said[mode] == said[PLAIN]
        return {"prompt_id": prompt.id, "task": prompt.task, "costs": self.costs, "modes": found}

"""Generate with a pair in a named mode, and time it: what the demo and the end-to-end benchmark share."""

from __future__ import annotations

import copy
import types
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from speckv.controller.curve import Costs
from speckv.controller.errors import SpecKVError
from speckv.controller.policy import BEST, Level, Policy, Request, Round
from speckv.controller.stats import Stats
from speckv.integrations.transformers import attach, attach_policy, detach
from speckv.integrations.transformers.hook import attachment
from speckv.integrations.transformers.loop import RoundListener

PLAIN, STOCK = "plain", "hf-default"
UNKNOWN: Level = np.zeros((1, 1 + BEST))
"""The signals of what transformers' own loop drafts: that one does not tell them."""


@dataclass
class Generation:
    """One timed call of ``generate``: the new tokens of every prompt, seconds, and what the rounds added up to."""

    sequences: list[list[int]]
    started: float
    """By ``perf_counter``."""
    seconds: float
    stats: Stats = field(default_factory=Stats)

    @property
    def tokens(self) -> list[int]:
        """Those of the first prompt."""
        return self.sequences[0]


class Modes:
    """A loaded pair and the modes it can generate in.

    ``plain`` is the target alone and ``hf-default`` transformers' own assisted generation as it ships; ``fixed-N``,
    ``paper`` and ``speckv`` are ours. What a learning mode has learnt is kept from prompt to prompt, as it would be
    in use; each mode has its own.
    """

    def __init__(
        self, target: PreTrainedModel, draft: PreTrainedModel, controller: str = "default", costs: Costs | None = None
    ) -> None:
        self.target = target
        self.draft = draft
        self.controller = controller
        self.costs = costs
        self._shipped = copy.deepcopy(draft.generation_config)
        self._policies: dict[str, Policy] = {}

    def policy(self, mode: str) -> Policy | None:
        """The policy of one of our modes that has generated already."""
        return self._policies.get(mode)

    def generate(
        self, mode: str, inputs: Any, tokens: int, listener: RoundListener | None = None, **settings: Any
    ) -> Generation:
        """Up to ``tokens`` new tokens after each of ``inputs``, greedy unless ``settings`` say otherwise.

        ``listener`` is told every finished round, those of ``hf-default`` without times and signals.
        """
        arguments = {"max_new_tokens": tokens, "do_sample": False, **settings}
        stats = Stats()

        def told(outcome: Round) -> None:
            stats.add(outcome)
            if listener is not None:
                listener(outcome)

        with self._ready(mode, told):
            generate: Any = self.target.generate  # as it is once the draft is attached
            assistant = {} if mode == PLAIN else {"assistant_model": self.draft}
            started = perf_counter()
            output = generate(**inputs, **assistant, **arguments)
            seconds = perf_counter() - started
        new = [
            until(sequence, end_tokens(self.target)) for sequence in output[:, inputs["input_ids"].shape[1] :].tolist()
        ]
        if mode == PLAIN:
            stats.rounds = stats.emitted = stats.gammas[0] = sum(map(len, new))
        return Generation(new, started, seconds, stats)

    @contextmanager
    def _ready(self, mode: str, told: RoundListener) -> Iterator[None]:
        if mode == PLAIN:
            yield
        elif mode == STOCK:
            # Assisted generation writes what it tuned back into the draft's configuration: start as shipped.
            self.draft.generation_config = copy.deepcopy(self._shipped)
            if find_spec("sklearn"):  # which it imports within a generation, for seconds: not what is timed
                import_module("sklearn.metrics")
            with counted_stock(self.target, told):
                yield
        else:
            self._attach(mode, told)
            try:
                yield
            finally:
                detach(self.target)

    def _attach(self, mode: str, told: RoundListener) -> None:
        if mode in self._policies:
            attach_policy(self.target, self.draft, self._policies[mode], told, same_tokenizer=True)
            return
        settings = settings_of(mode)
        settings |= {"costs": self.costs, "same_tokenizer": True}
        attach(self.target, self.draft, self.controller, listener=told, **settings)
        self._policies[mode] = attachment(self.target).policy


def settings_of(mode: str) -> dict[str, Any]:
    """What one of our modes says to ``attach``; raises SpecKVError for a mode that is none."""
    if mode.startswith("fixed-") and mode[6:].isdigit():
        return {"gamma": int(mode[6:])}
    known: dict[str, dict[str, Any]] = {
        "paper": {"objective": "tokens"},
        "speckv": {},
        "speckv-step": {"mode": "step"},
        "speckv-chain": {"siblings": False},
    }
    if mode not in known:
        raise SpecKVError(f"mode {mode}: known are {PLAIN}, {STOCK}, fixed-N, {', '.join(known)}")
    return known[mode]


def until(sequence: list[int], ends: Collection[int]) -> list[int]:
    """``sequence`` with the first of ``ends`` in it, without what a batch fills up with after it."""
    return sequence[: next((number + 1 for number, token in enumerate(sequence) if token in ends), len(sequence))]


def end_tokens(model: PreTrainedModel) -> frozenset[int]:
    """The ids that end a sequence of ``model``."""
    eos = model.generation_config.eos_token_id
    return frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])


@contextmanager
def counted_stock(target: PreTrainedModel, told: RoundListener) -> Iterator[None]:
    """Tell the rounds of transformers' own candidate generator while it does exactly what it always does."""

    def make(self: PreTrainedModel, **arguments: Any) -> Any:
        kind: Any = type(self)
        generator = kind._get_candidate_generator(self, **arguments)
        propose, update = generator.get_candidates, generator.update_candidate_strategy
        current: list[tuple[int, int]] = []

        def get_candidates(input_ids: Any, *rest: Any, **more: Any) -> Any:
            proposed = propose(input_ids, *rest, **more)
            current.append((input_ids.shape[1], proposed[0].shape[1] - input_ids.shape[1]))
            return proposed

        def update_candidate_strategy(input_ids: Any, scores: Any, num_matches: Any) -> Any:
            length, drafted = current.pop()
            told(
                Round(
                    [Request()],
                    position=length,
                    levels=[UNKNOWN] * drafted,
                    gamma=drafted,
                    accepted=[int(num_matches)],
                    ranks=[0],
                    emitted=input_ids.shape[1] - length,
                )
            )
            return update(input_ids, scores, num_matches)

        generator.get_candidates = get_candidates
        generator.update_candidate_strategy = update_candidate_strategy
        return generator

    target.__dict__["_get_candidate_generator"] = types.MethodType(make, target)
    try:
        yield
    finally:
        target.__dict__.pop("_get_candidate_generator", None)

"""A pair in transformers, timed with every policy on one prompt, or batch of prompts, after the other."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from time import perf_counter
from typing import Any

import torch
import transformers

from speckv.benchmarks.bench.plan import ALONE, OURS, PLAIN, REGIMES, Entry, Plan, Unit, batches, joined
from speckv.benchmarks.collect.generation import Generation, Modes
from speckv.benchmarks.collect.profile import chat_inputs
from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.prompts import Prompt
from speckv.controller.policy import Round
from speckv.integrations.cost_store import remember, remembered
from speckv.integrations.models import load_pair
from speckv.integrations.transformers.calibrate import about, calibrate

NAME = "transformers"
WARM_UP_TOKENS = 8


def measure(plan: Plan, done: Collection[str], report: Report) -> Iterator[Unit]:
    """A unit per regime, repetition and batch of prompts; all policies in turn on each, another one first each time.

    Of prompts that do not fill a last batch nothing is measured in that size.
    """
    for regime in plan.regimes:
        work = [
            (f"{NAME}/{regime}/{repeat}/{joined(prompts)}", repeat, number, prompts)
            for size in plan.batches
            for repeat in range(plan.repeats)
            for number, prompts in enumerate(batches(plan.prompts, size))
        ]
        todo = [unit for unit in work if unit[0] not in done]
        what = f"{NAME}, {regime}"
        report(what, len(work) - len(todo), len(work))
        if not todo:
            continue
        runner = Runner(plan, regime, report)
        yield Unit(f"{NAME}/{regime}/costs", facts={"costs": {regime: runner.costs}})
        for finished, (key, repeat, number, prompts) in enumerate(todo, start=len(work) - len(todo) + 1):
            yield Unit(key, runner.run(prompts, number + repeat, repeat))
            report(what, finished, len(work))


class Arrivals:
    """A streamer that notes when tokens arrive, by ``perf_counter``, as a reader of the stream would see them."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.prompt_seen = False

    def put(self, value: Any) -> None:
        if not self.prompt_seen:  # generate() sends the prompt first
            self.prompt_seen = True
            return
        self.times += [perf_counter()] * value.numel()

    def end(self) -> None:
        pass


class Runner:
    """A loaded pair; its costs are calibrated first where none are remembered, as a user would."""

    def __init__(self, plan: Plan, regime: str, report: Report) -> None:
        torch.set_num_threads(plan.threads or os.cpu_count() or 1)
        transformers.logging.set_verbosity_error()
        self.target, draft, self.tokenizer = load_pair(plan.pair, *REGIMES[regime], progress=report)
        costs = remembered(about(self.target, draft))
        if costs is None:
            costs = calibrate(self.target, draft, progress=report)
            remember(about(self.target, draft), costs)
        self.costs = {"draft_ms": costs.draft[1], "verify_ms": {str(rows): ms for rows, ms in costs.verify.items()}}
        self.regime, self.tokens, self.policies = regime, plan.tokens, plan.policies
        # Said in full: what a model's own configuration would add differs between frameworks.
        self.settings: dict[str, Any] = {"repetition_penalty": 1.0}
        if plan.temperature:
            self.settings |= {"do_sample": True, "temperature": plan.temperature, "top_k": 0, "top_p": 1.0}
        self.modes = Modes(self.target, draft, plan.controller)
        warm_up = chat_inputs(self.tokenizer, "Hello").to(self.target.device)
        for policy in self.policies:
            self.modes.generate(policy, warm_up, WARM_UP_TOKENS)

    def run(self, prompts: Sequence[Prompt], number: int, repeat: int) -> list[Entry]:
        """Every policy on ``prompts`` at once; what is stored of it."""
        inputs = chat_inputs(self.tokenizer, *(prompt.text for prompt in prompts)).to(self.target.device)
        policies = [policy for policy in self.policies if len(prompts) == 1 or policy not in ALONE]
        shift = number % len(policies)
        tasks = dict.fromkeys(prompt.task for prompt in prompts)
        made = []
        for policy in (*policies[shift:], *policies[:shift]):
            torch.manual_seed(number)
            of: Entry = {"framework": NAME, "regime": self.regime, "policy": policy, "concurrency": len(prompts)}
            of |= {"repeat": repeat, "prompt_id": joined(prompts), "task": "+".join(tasks)}
            made.append(of | (self._generate(policy, inputs) if len(prompts) == 1 else self._batch(policy, inputs)))
        return made

    def _batch(self, policy: str, inputs: Any) -> Entry:
        rounds: list[Round] = []
        done = self.modes.generate(policy, inputs, self.tokens, rounds.append, **self.settings)
        gammas = [0] * max(map(len, done.sequences)) if policy == PLAIN else [one.gamma for one in rounds]
        return counted(done) | {"arrivals_ms": [], "output": done.sequences, "gammas": gammas}

    def _generate(self, policy: str, inputs: Any) -> Entry:
        arrivals = Arrivals()
        rounds: list[Round] = []
        predicted: list[tuple[float, bool]] = []

        def listen(outcome: Round) -> None:
            rounds.append(outcome)
            asked: dict[int, Any] = getattr(outcome.notes, "asked", {})  # ours: answers, before level j was there
            said = {at + 1: answers[0, min(at, 1)] for at, answers in asked.items()}
            accepted = outcome.accepted[0]
            predicted.extend((round(float(p), 4), accepted >= j) for j, p in said.items() if j <= outcome.gamma)

        done = self.modes.generate(policy, inputs, self.tokens, listen, streamer=arrivals, **self.settings)
        steady = [one for one in rounds if one.verify_ms and not (one.draft_prefill or one.verify_prefill)]
        return counted(done) | {
            "arrivals_ms": [round((at - done.started) * 1e3, 1) for at in arrivals.times],
            "output": done.tokens,
            "gammas": [0] * len(done.tokens) if policy == PLAIN else [len(one.levels) for one in rounds],
            "steps": [step(one) for one in steady],
            **({"predicted": predicted} if policy == OURS else {}),
        }


def counted(done: Generation) -> Entry:
    """What is stored of any generation."""
    stats = done.stats.as_dict()
    kept = {name: stats[name] for name in ("rounds", "drafted", "accepted", "siblings", "sibling_hits")}
    return {"tokens": sum(map(len, done.sequences)), "ms": done.seconds * 1e3, **kept}


def step(one: Round) -> list[Any]:
    """A round of one sequence, as an ``Entry`` has it."""
    times = [round(one.draft_ms or 0.0, 2), round(one.verify_ms or 0.0, 2)]
    return [one.gamma, one.accepted[0], *times, one.offered_siblings, any(one.sibling_hits), len(one.levels)]

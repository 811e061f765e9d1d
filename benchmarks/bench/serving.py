"""Running servers of SGLang: one policy's, and several of which one answers at a time."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from speckv.benchmarks.bench.plan import (
    ADAPTIVE,
    CHAIN,
    DRAFT_KINDS,
    OURS,
    PLAIN,
    REGIMES,
    STEP,
    Entry,
    Plan,
    load_formats,
    share_wall,
)
from speckv.benchmarks.bench.sglang_server import Server
from speckv.benchmarks.prompts import Prompt
from speckv.controller.errors import SpecKVError
from speckv.controller.stats import by_number

NAME = "sglang"
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""Of what is not compressed; what is computes in bfloat16."""

CEILING = 8
SETTINGS: dict[str, dict[str, Any]] = {OURS: {}, CHAIN: {"trees": []}, STEP: {"mode": "step"}}
"""Of our own policies: what is said in the file of ``--speculative-adaptive-config``."""

WARM_UP = 1


def wait_for(server: Server, what: str) -> Server:
    """``server`` once it serves; SpecKVError with the last line of its log where it does not."""
    try:
        return server.wait()
    except RuntimeError as error:
        raise SpecKVError(f"SGLang did not start with {what}: {_last_line(str(error))}") from None


def _last_line(log: str) -> str:
    return next((line[:200] for line in reversed(log.splitlines()) if line.strip()), "nothing is in its log")


def options(plan: Plan, policy: str, regime: str, draft: str, folder: Path) -> list[str]:
    """The server's options for a policy; ``folder`` is for its configuration."""
    made = ["--max-running-requests", str(max(plan.concurrencies)), "--max-total-tokens", "16384"]
    ours, stock = DRAFT_KINDS[plan.draft_kind]
    target_format, draft_format = load_formats(regime)
    made += ["--load-format", target_format]
    if policy == PLAIN:
        return made
    made += ["--speculative-draft-model-path", draft, "--speculative-draft-load-format", draft_format]
    if policy in SETTINGS:
        made += ["--speculative-algorithm", ours, "--speculative-num-steps", str(CEILING)]
        said = dict(SETTINGS[policy])
        if plan.controller != "default":
            said["controller"] = str(Path(plan.controller).absolute())
        if ours == stock:  # a head's algorithm is SGLang's own, and this is how ours is asked for
            said = {"speckv": said}
            made += ["--speculative-adaptive"]
        if said:
            settings = folder / "speckv.json"
            settings.write_text(json.dumps(said), encoding="utf-8")
            made += ["--speculative-adaptive-config", str(settings)]
        return made
    if policy == ADAPTIVE:
        return [*made, "--speculative-algorithm", stock, "--speculative-adaptive"]
    gamma = int(policy.removeprefix("fixed-"))
    made += ["--speculative-algorithm", stock, "--speculative-num-steps", str(gamma)]
    return [*made, "--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", str(gamma + 1)]


class Serving:
    """A policy's running server."""

    def __init__(self, plan: Plan, regime: str, policy: str, models: tuple[str, str], python: str) -> None:
        self.plan, self.regime, self.policy = plan, regime, policy
        self.folder = tempfile.TemporaryDirectory()
        self.warm = 0
        target, draft = models
        given = options(plan, policy, regime, draft, Path(self.folder.name))
        dtype = DTYPES.get(REGIMES[regime][0], "bfloat16")
        self.server = Server(Path(target), *given, dtype=dtype, threads=plan.threads or None, python=python)

    def __enter__(self) -> Serving:
        wait_for(self.server, self.policy)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self.folder.cleanup()

    def answer(self, prompts: Sequence[tuple[Prompt, list[int]]], size: int) -> list[Entry]:
        """The prompts, ``size`` at a time, from an empty prefix cache, after a few to warm up with to a new size."""
        if not self.plan.fresh and size != self.warm:
            self._pass(prompts[: WARM_UP * size], size)
            self.warm = size
        started = time.perf_counter()
        entries = self._pass(prompts, size)
        wall = 1e3 * (time.perf_counter() - started)
        share_wall(entries, wall)
        return entries

    def _pass(self, prompts: Sequence[tuple[Prompt, list[int]]], size: int) -> list[Entry]:
        self.server.flush()
        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(lambda one: self._one(one[0], one[1], size), prompts))

    def _one(self, prompt: Prompt, ids: list[int], size: int) -> Entry:
        sampling = {"temperature": self.plan.temperature, "max_new_tokens": self.plan.tokens}
        sampling |= {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}
        started = time.perf_counter()
        arrivals: list[float] = []
        output: list[int] = []
        facts: dict[str, Any] = {}
        for event in self.server.stream("/generate", input_ids=ids, sampling_params=sampling):
            facts, output = event["meta_info"], event["output_ids"]
            now = 1e3 * (time.perf_counter() - started)
            arrivals += [round(now, 1)] * (facts["completion_tokens"] - len(arrivals))
        if not facts:
            raise SpecKVError(f"SGLang ended with {self.policy} while it answered: {_last_line(self.server.tail())}")
        gammas, siblings, hits = (
            [value for value in facts.get(name, []) if value is not None]
            for name in ("speckv_gamma", "speckv_siblings", "speckv_sibling_hit")
        )
        by_depth: Counter[int] = Counter()
        for counts in siblings:
            by_depth.update(dict(enumerate(counts, 1)))
        count = facts["completion_tokens"]
        rounds = facts.get("spec_verify_ct", count - 1)
        if self.policy.startswith("fixed-"):
            gammas = [int(self.policy.removeprefix("fixed-"))] * rounds
        return {
            "framework": NAME,
            "regime": self.regime,
            "policy": self.policy,
            "concurrency": size,
            "prompt_id": prompt.id,
            "task": prompt.task,
            "tokens": count,
            "ms": 1e3 * (time.perf_counter() - started),
            "arrivals_ms": arrivals,
            "output": output,
            "rounds": rounds,
            "drafted": sum(gammas),
            "accepted": facts.get("spec_num_correct_drafts", 0) - sum(map(bool, hits)),
            "siblings": by_number(by_depth),
            "sibling_hits": by_number(Counter(filter(None, hits))),
            "gammas": gammas or [0] * rounds,
        }


class Servers(AbstractContextManager["Servers"]):
    """One policy's server at a time; ``together``, all of them, of which one runs and the others are stopped.

    A server is for a repetition, ``fresh`` for one size of it, and ``together`` for all.
    """

    def __init__(self, plan: Plan, regime: str, models: tuple[str, str], python: str) -> None:
        self._plan, self._about = plan, (regime, models, python)
        self._running: dict[tuple[Any, ...], Serving] = {}
        self._held = ExitStack()
        self._awake: Serving | None = None

    def at(self, repeat: int, policy: str, size: int) -> Serving:
        """The server that is to answer now."""
        plan = self._plan
        key = (policy,) if plan.together else (policy, repeat, size if plan.fresh else 0)
        if self._awake is not None and self._running.get(key) is not self._awake:
            if plan.together:
                self._awake.server.pause()
            else:
                self.__exit__()
        if key not in self._running:
            regime, models, python = self._about
            self._running[key] = self._held.enter_context(Serving(plan, regime, policy, models, python))
        elif self._awake is not self._running[key]:
            self._running[key].server.resume()
        self._awake = self._running[key]
        return self._awake

    def __exit__(self, *_: object) -> None:
        self._held.close()
        self._running.clear()
        self._awake = None

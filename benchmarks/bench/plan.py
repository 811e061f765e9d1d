"""What a benchmark measures: models, frameworks, compressions, policies, prompts; and one unit of measured work."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.prompts import TASKS, Prompt
from speckv.controller.errors import SpecKVError

REGIMES = {
    "bf16": ("bf16", "bf16"),
    "int8": ("int8", "bf16"),
    "nf4": ("nf4", "bf16"),
    "nf4-draft4": ("nf4", "nf4"),
    "fp16": ("fp16", "fp16"),
    "fp32": ("fp32", "fp32"),
}
"""Compression of target and draft, by the name of the regime."""

DENSE = ("bf16", "fp16", "fp32")
"""The compressions that are none."""


def load_formats(regime: str) -> tuple[str, str]:
    """SGLang's ``--load-format`` of target and draft: what is compressed it loads as bitsandbytes has saved it."""
    target, draft = ("auto" if compression in DENSE else "bitsandbytes" for compression in REGIMES[regime])
    return target, draft


KIND, VERSION = "speckv bench", 1
"""What a result file says it is."""

PLAIN, STOCK, OURS = "plain", "hf-default", "speckv"
CHAIN, STEP = "speckv-chain", "speckv-step"
"""Ours without siblings; ours decided before drafting, as a server with captured graphs has to."""

ADAPTIVE = "sglang-adaptive"
"""SGLang's own choice of the length for heads: by a mean of what was accepted lately."""

DRAFT_KINDS = {"model": ("SPECKV", "STANDALONE"), "eagle3": ("EAGLE3", "EAGLE3"), "mtp": ("NEXTN", "NEXTN")}
"""SGLang's ``--speculative-algorithm`` for ours and for a fixed γ: of a separate draft model, and of heads."""

SERVERS, AS_SERVED = "servers", "as served"
"""The framework of servers that run somewhere already, and their regime: how they are compressed is not known."""

ALONE = (STOCK,)
"""Policies that take one prompt at a time."""

POLICIES = (PLAIN, "fixed-2", "fixed-4", "fixed-8", STOCK, "paper", OURS)

Entry = dict[str, Any]
"""One timed generation: ``framework``, ``regime``, ``policy``, ``concurrency``, ``repeat``, ``prompt_id``, ``task``;
``tokens`` and ``ms``, ``arrivals_ms`` of its tokens, ``output`` ids; ``rounds``, ``drafted``, ``accepted``, and
``gammas`` of its rounds; ``siblings`` verified and ``sibling_hits`` that were right, by depth. In transformers
also ``steps``, a list of [γ, accepted, draft ms, verify ms, siblings, if one was right, levels drafted], without the
rounds that hold a prefill; and for ours ``predicted``, a list of [P(accepted > i), whether it was].

In transformers ``concurrency`` is the prompts of one call, a batch: its tokens are counted together, its texts are one
output, and since a batch has no streamer and its rounds are of several texts, there are no arrivals, no steps and no
predictions.

Of servers at a URL ``policy`` is the name given to the server, ``output`` its text, and ``counted`` is "usage", or
"chunks" where the server does not tell its tokens; ``gammas`` are empty, and nothing else is known of its rounds."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides what is measured. ``servers`` are URLs by name, ``models`` what each is asked for."""

    prompts: tuple[Prompt, ...]
    pair: str = "qwen2.5-coder"
    frameworks: tuple[str, ...] = ("transformers",)
    regimes: tuple[str, ...] = ("bf16",)
    policies: tuple[str, ...] = POLICIES
    concurrencies: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1,)
    tokens: int = 64
    temperature: float = 0.0
    repeats: int = 1
    threads: int = 0
    controller: str = "default"
    sglang_python: str = ""
    draft_kind: str = "model"
    fresh: bool = False
    """In SGLang: every figure from a server that was just started, without stored costs or anything to warm up with."""
    together: bool = False
    """In SGLang: all policies' servers at once, of which one runs at a time, in turns; takes memory."""
    servers: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    api_key: str = field(default="", repr=False)

    @property
    def against(self) -> str:
        """The policy that the others are compared with: plain decoding, or the first of the servers."""
        return next(iter(self.servers), PLAIN)

    def check(self, frameworks: Collection[str]) -> None:
        """Raise SpecKVError on what cannot be measured."""
        _known("framework", self.frameworks, frameworks)
        if (SERVERS in self.frameworks) != bool(self.servers):
            raise SpecKVError(f"{SERVERS} are measured by their addresses; give each with --url")
        if not self.servers:
            _known("compression", self.regimes, REGIMES)
            fixed = {name for name in self.policies if name.startswith("fixed-") and name[6:].isdigit()}
            _known("policy", [name for name in self.policies if name not in fixed], (*POLICIES, STEP, CHAIN, ADAPTIVE))
            _known("draft kind", [self.draft_kind], DRAFT_KINDS)
            if self.draft_kind != "model" and self.frameworks != ("sglang",):
                raise SpecKVError(f"draft kind {self.draft_kind}: heads are for --framework sglang alone")
            if self.draft_kind == "model" and ADAPTIVE in self.policies:
                raise SpecKVError(f"policy {ADAPTIVE}: SGLang has it for heads; add --draft-kind eagle3 or mtp")
        if (self.fresh or self.together) and "sglang" not in self.frameworks:
            raise SpecKVError(f"{'fresh' if self.fresh else 'together'}: servers are SGLang's; add --framework sglang")
        if self.fresh and self.together:
            raise SpecKVError("together: servers that are kept are not fresh; give one of the two")
        if self.against not in self.policies:
            raise SpecKVError("policies: plain is missing, and everything is measured against it")
        counts = Counter(prompt.id for prompt in self.prompts)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise SpecKVError(f"prompt {twice[0]} is there twice; give each an id of its own")
        if not 0 <= self.temperature < inf:
            raise SpecKVError(f"temperature {self.temperature}: must be 0 (greedy) or above")
        for what, sizes in (("concurrency", self.concurrencies), ("batch", self.batches)):
            if min(sizes) < 1:
                raise SpecKVError(f"{what} {min(sizes)}: must be at least 1")
        if max(self.batches) > len(self.prompts):
            raise SpecKVError(f"batch {max(self.batches)}: there are only {len(self.prompts)} prompts; give more")

    def setting(self, digest: str) -> dict[str, Any]:
        """What two measurements must share to stand in one table; ``digest`` is the controller's, "" of servers."""
        if self.servers:
            asked = "".join(f"{prompt.id}\0{prompt.text}\0" for prompt in self.prompts)
            made: dict[str, Any] = {"pair": self.pair, "tokens": self.tokens, "temperature": self.temperature}
            made |= {"servers": self.servers, "models": self.models}
            return made | {"prompts_sha256": hashlib.sha256(asked.encode()).hexdigest()}
        kept = [
            "pair",
            "tokens",
            "temperature",
            "threads",
            *(name for name in ("fresh", "together") if getattr(self, name)),
        ]
        kept += ["draft_kind"] if self.draft_kind != "model" else []
        return {name: value for name, value in asdict(self).items() if name in kept} | {"controller": digest}


@dataclass
class Unit:
    """Work that is measured as a whole, and stored before the next begins."""

    key: str
    entries: list[Entry] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


Measure = Callable[[Plan, Collection[str], Report], Iterator[Unit]]
"""Measures a plan in one framework, but for the units whose keys are given."""


def batches(prompts: Sequence[Prompt], size: int) -> list[Sequence[Prompt]]:
    """``prompts`` in their order, ``size`` at a time, without an incomplete last batch."""
    return [prompts[start : start + size] for start in range(0, len(prompts) - size + 1, size)]


def share_wall(entries: Sequence[Entry], wall_ms: float) -> None:
    """Make ``ms`` of requests that ran side by side their shares of ``wall_ms``, so that their sum is what it took.

    What each waited for its answer is then in ``latency_ms``.
    """
    waited = sum(entry["ms"] for entry in entries)
    for entry in entries:
        entry["latency_ms"] = entry["ms"]
        entry["ms"] *= wall_ms / waited


def joined(prompts: Sequence[Prompt]) -> str:
    """The ``prompt_id`` of a batch; of one prompt its own."""
    return "+".join(prompt.id for prompt in prompts)


def balanced(prompts: list[Prompt], count: int) -> tuple[Prompt, ...]:
    """The first ``count`` prompts when the tasks take turns, the built-in ones first; 0 takes all."""
    tasks = dict.fromkeys((*TASKS, *(prompt.task for prompt in prompts)))
    by_task = [[prompt for prompt in prompts if prompt.task == task] for task in tasks]
    turns = [of[number] for number in range(max(map(len, by_task))) for of in by_task if number < len(of)]
    if count > len(turns):
        raise SpecKVError(f"{count} prompts are asked for, and there are {len(turns)}; give fewer, or a file with more")
    return tuple(turns[: count or len(turns)])


def _known(what: str, given: Collection[str], known: Collection[str]) -> None:
    if not given:
        raise SpecKVError(f"no {what} is given; known are {', '.join(known)}")
    if unknown := [name for name in given if name not in known]:
        raise SpecKVError(f"{what} {unknown[0]}: known are {', '.join(known)}")

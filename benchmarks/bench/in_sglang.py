"""A pair in SGLang's real server: policy by policy or in turns, in mirrored order, at several concurrencies."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from speckv.benchmarks.bench.heads import with_head
from speckv.benchmarks.bench.plan import ADAPTIVE, DENSE, PLAIN, REGIMES, Plan, Unit
from speckv.benchmarks.bench.serving import NAME, SETTINGS, Servers
from speckv.benchmarks.collect.profile import chat_inputs
from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.prompts import Prompt
from speckv.controller.errors import SpecKVError
from speckv.integrations.installed import version
from speckv.integrations.models.compressed import compressed_folder
from speckv.integrations.models.loading import load_model, load_tokenizer, perturbed, resolve

OWN_ENVIRONMENT = Path(".venv-sglang/bin/python")


def measure(plan: Plan, done: Collection[str], report: Report) -> Iterator[Unit]:
    """A unit per regime, repetition, policy, concurrency and turn: its prompts once, so many at a time.

    Every other repetition goes through the policies in reverse, each with one turn of all prompts. ``together``, they
    take turns of some, forwards and backwards: what a shared machine does for minutes then happens to all of them.
    """
    python = plan.sglang_python or own_python()
    for regime in plan.regimes:
        known = (PLAIN, ADAPTIVE, *SETTINGS)
        policies = [policy for policy in plan.policies if policy in known or policy.startswith("fixed-")]
        work = [
            (repeat, policy, size, turn)
            for repeat in range(plan.repeats)
            for policy in (reversed(policies) if repeat % 2 else policies)
            for size in plan.concurrencies
            for turn in range(-(-len(plan.prompts) // _turn(plan, size)))
        ]
        if plan.together:  # turn by turn, and not server by server
            work.sort(key=lambda one: _in_turns(policies.index(one[1]), *one))
        todo = [one for one in work if _key(regime, *one) not in done]
        what = f"{NAME}, {regime}"
        report(what, len(work) - len(todo), len(work))
        if not todo:
            continue
        with ExitStack() as held:
            models = folders(with_head(plan.pair, plan.draft_kind, report), held, report, *REGIMES[regime])
            prompts = _ids(models[0], plan.prompts)
            servers = held.enter_context(Servers(plan, regime, models, python))
            for finished, (repeat, policy, size, turn) in enumerate(todo, 1):
                length = _turn(plan, size)
                chosen = prompts[turn * length : (turn + 1) * length]
                entries = servers.at(repeat, policy, size).answer(chosen, size)
                yield Unit(_key(regime, repeat, policy, size, turn), [e | {"repeat": repeat} for e in entries])
                report(what, len(work) - len(todo) + finished, len(work))


def own_python() -> str:
    """The interpreter that has SGLang: this one, or that of the environment that make makes beside a clone."""
    if version("sglang"):
        return sys.executable
    if OWN_ENVIRONMENT.exists():
        return str(OWN_ENVIRONMENT.absolute())
    raise SpecKVError(
        "sglang is not installed here; name the Python that has it with --sglang-python, or leave it out with "
        "--framework transformers (in a clone, `make .venv-sglang/.ready` installs it)"
    )


def _turn(plan: Plan, size: int) -> int:
    """Prompts that a policy has answered before the next one's turn comes."""
    return 2 * size if plan.together else len(plan.prompts)


def _in_turns(place: int, repeat: int, _: str, size: int, turn: int) -> tuple[int, ...]:
    """Sorts the turns of policies, of which this one has ``place``; every other time in reverse."""
    return repeat, size, turn, -place if (repeat + turn) % 2 else place


def _key(regime: str, repeat: int, policy: str, size: int, turn: int) -> str:
    return f"{NAME}/{regime}/{repeat}/{policy}/{size}/{turn}"


def folders(
    pair: str, held: ExitStack, report: Report, compression: str = "bf16", draft_compression: str = "bf16"
) -> tuple[str, str]:
    """Target and draft as folders or hub ids; a draft that is the target with noise is written to a folder first."""
    sources = resolve(pair, report)
    target, draft, kept = sources.target, sources.draft, None
    if draft is None:
        kept = Path(held.enter_context(tempfile.TemporaryDirectory()))
        draft = str(kept / "draft")
        perturbed(load_model(target, "bf16"), sources.noise).save_pretrained(draft)
        load_tokenizer(target).save_pretrained(draft)
    if compression not in DENSE:
        target = str(compressed_folder(target, compression, report))
    if draft_compression not in DENSE:
        draft = str(compressed_folder(draft, draft_compression, report, kept))
    return target, draft


def _ids(target: str, prompts: Sequence[Prompt]) -> list[tuple[Prompt, list[int]]]:
    tokenizer = load_tokenizer(target)
    return [(prompt, chat_inputs(tokenizer, prompt.text)["input_ids"][0].tolist()) for prompt in prompts]

"""Make traces with real models: the target's sequences in batches, the draft's runs of one all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from speckv.benchmarks.collect.generation import end_tokens, until
from speckv.benchmarks.collect.half_precision import EMULATED, arithmetic, emulate
from speckv.benchmarks.collect.profile import chat_inputs, shown
from speckv.benchmarks.collect.traces import FORMAT, LAST_RANK, Best, Branch, write_traces
from speckv.benchmarks.common.journal import Journal
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.prompts import Prompt
from speckv.controller.errors import SpecKVError
from speckv.controller.policy import BEST
from speckv.integrations.models import load_model, resolve
from speckv.integrations.models.loading import load_tokenizer
from speckv.integrations.transformers.cache import new_cache


def make_traces(
    out: Path,
    prompts: Sequence[Prompt],
    pair: str,
    compression: str,
    draft_compression: str = "bf16",
    tokens: int = 96,
    depth: int = 20,
    batch: int = 16,
    progress: Report = lambda *_: None,
) -> int:
    """Trace ``prompts`` and write ``out``; returns how many positions it has.

    Resumes from the journal beside ``out`` (``.partial.jsonl``), which has a line per finished batch of prompts and
    is deleted once ``out`` is written.
    """
    setting: dict[str, Any] = {"pair": pair, "compression": compression, "draft_compression": draft_compression}
    setting |= {"tokens": tokens, "depth": depth, "batch": batch, "format": FORMAT, "arithmetic": arithmetic()}
    journal = Journal(out.with_suffix(".partial.jsonl"))
    entries: dict[str, dict[str, Any]] = {}
    for line in journal.read():
        if line["setting"] != setting:
            raise SpecKVError(f"{journal.path}: begun with other settings; delete it, or repeat {line['setting']}")
        entries |= {entry["prompt_id"]: entry for entry in line["entries"]}
    todo = sorted((p for p in prompts if p.id not in entries), key=lambda prompt: len(prompt.text))
    progress(f"trace {compression}", len(prompts) - len(todo), len(prompts))
    sources = resolve(pair)
    if todo:
        if sources.draft is None:
            raise SpecKVError(f"{pair}: its draft is the target with noise, which is not worth tracing")
        tracer = _Tracer(sources.target, sources.draft, compression, draft_compression, tokens, depth)
        for group in (todo[start : start + batch] for start in range(0, len(todo), batch)):
            made = tracer.trace(group)
            journal.append({"setting": setting, "entries": made})
            entries |= {entry["prompt_id"]: entry for entry in made}
            progress(f"trace {compression}", len(entries), len(prompts))
    facts = {**setting, "versions": versions(), "machine": machine(), "target": shown(sources.target)}
    facts |= {"draft": shown(sources.draft or sources.target)}
    write_traces(out, [entries[prompt.id] for prompt in prompts], facts)
    journal.path.unlink(missing_ok=True)
    return sum(len(entries[prompt.id]["branches"]) for prompt in prompts)


class _Tracer:
    """A loaded pair, ready to trace batches of prompts."""

    def __init__(
        self, target: str, draft: str, compression: str, draft_compression: str, tokens: int, depth: int
    ) -> None:
        self.tokenizer = load_tokenizer(target)
        self.target = load_model(target, compression)
        self.draft = load_model(draft, draft_compression)
        if arithmetic() == EMULATED:
            emulate(self.target)
            emulate(self.draft)
        self.tokens, self.depth = tokens, depth

    def trace(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        ids = [chat_inputs(self.tokenizer, prompt.text)["input_ids"][0].tolist() for prompt in prompts]
        made = []
        for prompt, given, said in zip(prompts, ids, greedy(self.target, ids, self.tokens), strict=True):
            branches = run_ahead(self.draft, given, said, self.depth, self.tokens, end_tokens(self.target))
            entry = {"prompt_id": prompt.id, "task": prompt.task, "prompt_tokens": len(given)}
            made.append({**entry, "branches": [asdict(branch) for branch in branches]})
        return made


def greedy(target: PreTrainedModel, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """What ``target`` says after each prompt, up to ``tokens`` or its EOS, which is included."""
    width = max(map(len, prompts))
    padded = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts], device=target.device)
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=target.device)
    ends = end_tokens(target)
    pad = min(ends) if ends else 0
    with torch.inference_mode():
        output = target.generate(  # type: ignore[operator]
            input_ids=padded, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=pad
        )
    return [until(row, ends) for row in output[:, width:].tolist()]


@torch.inference_mode()
def run_ahead(
    draft: PreTrainedModel,
    prompt: Sequence[int],
    said: Sequence[int],
    depth: int,
    tokens: int,
    ends: frozenset[int],
) -> list[Branch]:
    """The branch of every position of ``said``, which the target said after ``prompt`` and may have ``tokens``.

    One forward over the sequence gives every position's first token. The runs that leave it then go on together, one
    forward a token: they are rows of one forward, and a mask keeps each to the sequence before it and its own tokens.
    """
    device = draft.device
    sequence = torch.tensor([[*prompt, *said]], device=device)
    kept = new_cache(draft)
    count, shared = len(said), sequence.shape[1] - 1
    logits = draft(input_ids=sequence[:, :-1], use_cache=True, logits_to_keep=count, **kept).logits[0]
    ranks = ranks_of(torch.tensor(said, device=device), logits).tolist()
    found = [[row] for row in _signals(logits)]
    room = [min(depth, tokens - place - 1) for place in range(count)]
    going = [p for p in range(count) if ranks[p] > 0 and room[p] > 1 and found[p][0][0] not in ends]
    owner = torch.full((shared,), -1, device=device)
    columns = torch.arange(shared, device=device)
    while going:
        rows = torch.tensor(going, device=device)
        ids = torch.tensor([[found[place][-1][0] for place in going]], device=device)
        before = torch.tensor([len(prompt) + place for place in going], device=device)[:, None]
        owner = torch.cat((owner, rows))
        seen = torch.cat((columns[None, :] < before, (owner[None, shared:] == rows[:, None])), dim=1)
        positions = torch.tensor([[len(prompt) + place + len(found[place]) - 1 for place in going]], device=device)
        logits = draft(
            input_ids=ids,
            attention_mask=seen[None, None],
            position_ids=positions,
            use_cache=True,
            **kept,
        ).logits[0]
        for place, row in zip(going, _signals(logits), strict=True):
            found[place].append(row)
        going = [p for p in going if len(found[p]) < room[p] and found[p][-1][0] not in ends]
    return [
        Branch(rank, tuple(entropy for _, entropy, _ in run), tuple(best for *_, best in run))
        for rank, run in zip(ranks, found, strict=True)
    ]


def ranks_of(tokens: Tensor, logits: Tensor) -> Tensor:
    """How many choices come before each of ``tokens`` (B,) in ``logits`` (B, V), at most LAST_RANK; (B,) int64.

    Of equal logits the one of the lower id comes first, as in ``argmax``: rank 0 is what greedy decoding takes.
    """
    own = logits.gather(1, tokens[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < tokens[:, None]
    return ((logits > own) | ((logits == own) & lower)).sum(-1).clamp(max=LAST_RANK)


def _signals(logits: Tensor) -> list[tuple[int, float, Best]]:
    """The greedily chosen token, entropy (nats) and BEST largest probabilities of every row of ``logits`` (B, V)."""
    p = logits.float().softmax(-1)
    entropies, best = torch.special.entr(p).sum(-1).clamp(min=0), p.topk(BEST, dim=-1).values
    return [
        (token, entropy, tuple(row))
        for token, entropy, row in zip(logits.argmax(-1).tolist(), entropies.tolist(), best.tolist(), strict=True)
    ]

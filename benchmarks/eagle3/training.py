"""Text that a target says, and a head trained on it: both are kept as they grow, so that either can be stopped."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from speckv.benchmarks.common.machine import lacks_bf16
from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.eagle3.head import STEPS, Head
from speckv.controller.files import write_whole

SHARD, LONGEST = 16, 384
"""Sequences that are said at a time, and the most tokens of one that are trained on."""

TEMPERATURE = 0.7
"""Between what is asked greedily and what is asked at 1; the prompts are few, and at 0 they would be answered alike."""

RATE, WARM, CLIP = 1e-3, 50, 1.0
"""Of AdamW: the highest learning rate, the steps until it is reached, and the gradient's largest norm."""

KEEP_EVERY = 25

LIKELY = 32
"""Tokens of the target's distribution that are learnt from: nearly all of its mass."""


class Said(NamedTuple):
    """A sequence: a prompt's tokens, and from ``start`` on what the target said."""

    ids: list[int]
    start: int


@torch.inference_mode()
def said(
    target: Any,
    prompts: Sequence[list[int]],
    tokens: int,
    folder: Path,
    shards: int,
    report: Report,
    temperature: float = TEMPERATURE,
) -> list[Said]:
    """What ``target`` says after ``prompts`` taken in turn, ``tokens`` long at most, sampled; ``shards`` · SHARD."""
    end = target.generation_config.eos_token_id
    pad = end[0] if isinstance(end, list) else (end or 0)
    sampling = GenerationConfig(
        do_sample=True, temperature=temperature, top_k=0, max_new_tokens=tokens, eos_token_id=end, pad_token_id=pad
    )
    found: list[Said] = []
    for number in range(shards):
        report("the target speaks", number, shards)
        file = folder / f"said-{number:04}.npz"
        asked = [prompts[(number * SHARD + i) % len(prompts)] for i in range(SHARD)]
        if not file.exists():
            torch.manual_seed(number)
            longest = max(map(len, asked))
            ids = torch.tensor([[pad] * (longest - len(one)) + one for one in asked])
            mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in asked])
            out = target.generate(input_ids=ids, attention_mask=mask, generation_config=sampling)
            spoken = [_until_end(row[longest - len(one) :], len(one), pad) for row, one in zip(out, asked, strict=True)]
            _keep(file, spoken)
        found += [Said(ids, len(one)) for ids, one in zip(_kept(file), asked, strict=True)]
    report("the target speaks", shards, shards)
    return found


def _until_end(row: Tensor, start: int, pad: int) -> list[int]:
    ids: list[int] = row.tolist()
    ends = [at for at in range(start, len(ids)) if ids[at] == pad]
    return ids[: ends[0] + 1] if ends else ids


def _keep(file: Path, sequences: list[list[int]]) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, ids=np.concatenate(sequences), lengths=[len(one) for one in sequences])
    write_whole(file, stream.getvalue())


def _kept(file: Path) -> list[list[int]]:
    with np.load(file, allow_pickle=False) as stored:
        return [part.tolist() for part in np.split(stored["ids"], stored["lengths"].cumsum()[:-1])]


def vocabulary(sequences: Sequence[Said], size: int) -> Tensor:
    """The ids of the ``size`` most frequent tokens, ascending."""
    counts = np.bincount(np.concatenate([one.ids for one in sequences]))
    return torch.from_numpy(np.sort(np.argsort(-counts, kind="stable")[:size].copy()))


class Lesson(NamedTuple):
    """Of a sequence of L tokens: row i is about what follows token i + 1."""

    ids: Tensor
    features: Tensor
    """(L − 1, layers · hidden): of tokens 0 … L − 2."""
    likely: Tensor
    """(L − 1, LIKELY): places in what the head knows."""
    probabilities: Tensor
    """The same shape; zeros where the target's likeliest token is not known to the head."""
    there: Tensor
    """(L − 1,): where it is."""


class Teacher:
    """What ``target`` makes of ``sequences``, for what ``head`` knows; computed when first asked for, and kept."""

    def __init__(self, target: Any, head: Head, sequences: Sequence[Said]) -> None:
        self._target, self._layers, self._known, self._of = target, head.layers, head.known, sequences
        self._lessons: dict[int, Lesson] = {}

    @torch.no_grad()
    def lessons(self, chosen: Sequence[int]) -> list[Lesson]:
        return [self._lesson(at) for at in chosen]

    def _lesson(self, at: int) -> Lesson:
        if at not in self._lessons:
            ids = torch.tensor(self._of[at].ids[:LONGEST])
            out = self._target(input_ids=ids[None], output_hidden_states=True, use_cache=False)
            features = torch.cat([out.hidden_states[layer + 1][0, :-1] for layer in self._layers], -1)
            logits = out.logits[0, 1:]
            likely = logits[:, self._known].float().softmax(-1).topk(min(LIKELY, len(self._known)))
            # Of a token that the head cannot say there is nothing to learn.
            there = torch.isin(logits.argmax(-1), self._known)
            self._lessons[at] = Lesson(ids, features, likely.indices, likely.values * there[:, None], there)
        return self._lessons[at]

    def embeds(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self._target.get_input_embeddings()(ids).detach()
        return embedded.float()


def train(
    target: Any, head: Head, sequences: Sequence[Said], file: Path, steps: int, size: int, report: Report
) -> float:
    """``steps`` of AdamW over batches of ``size`` sequences, by the target's distribution over what the head knows.

    Returned is the mean loss of the last KEEP_EVERY steps, nats a drafted token.
    """
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    losses = _resume(head, optimiser, file)
    head.train()
    done = len(losses)
    teacher = Teacher(target, head, sequences)
    for step, chosen in enumerate(_batches(len(sequences), size, steps)):
        if step < done:
            continue
        for group in optimiser.param_groups:
            group["lr"] = RATE * min((step + 1) / WARM, 1.0) * (1.0 - 0.95 * step / steps)
        loss = _loss(teacher, head, teacher.lessons(chosen))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP)
        optimiser.step()
        losses.append(float(loss.detach()))
        report("training", step + 1, steps)
        if (step + 1) % KEEP_EVERY == 0 or step + 1 == steps:
            _store(head, optimiser, file, losses)
    head.eval()
    return float(np.mean(losses[-KEEP_EVERY:]))


def _batches(count: int, size: int, steps: int) -> Iterator[list[int]]:
    """``size`` of ``count`` sequences a step, in a random order."""
    draws = np.random.default_rng(0)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < size:
            order += draws.permutation(count).tolist()
        chosen, order = order[:size], order[size:]
        yield chosen


def _loss(teacher: Teacher, head: Head, lessons: list[Lesson]) -> Tensor:
    """The mean over the steps of drafting of the cross-entropies."""

    def padded(name: str) -> Tensor:
        return pad_sequence([getattr(lesson, name) for lesson in lessons], batch_first=True)

    embeds, features = teacher.embeds(padded("ids"))[:, 1:], padded("features").float()
    likely, probabilities, there = padded("likely"), padded("probabilities"), padded("there")
    found = []
    with torch.autocast(embeds.device.type, torch.bfloat16, enabled=not lacks_bf16()):
        drafted = head.drafted(embeds, features)
    for step, logits in enumerate(drafted):
        gained = logits.float().log_softmax(-1).gather(-1, likely[:, step:]) * probabilities[:, step:]
        found.append(-gained.sum() / there[:, step:].sum().clamp(min=1))
    return torch.stack(found).mean()


@torch.inference_mode()
def accepted(target: Any, head: Head, sequences: Sequence[Said]) -> list[float]:
    """Shares of positions where the first 1, 2, … STEPS drafted tokens are those that the target said."""
    right = np.zeros(STEPS)
    count = 0
    teacher = Teacher(target, head, sequences)
    for at, one in enumerate(sequences):
        (lesson,) = teacher.lessons([at])
        begin = max(0, one.start - 2)
        embeds = teacher.embeds(lesson.ids[None, 1:])
        alive = torch.ones(max(0, len(lesson.ids) - STEPS - 1 - begin), dtype=torch.bool)
        for step, drafted in enumerate(head.drafted(embeds, lesson.features[None].float())):
            said = lesson.ids[begin + 2 + step :][: len(alive)]
            alive &= head.known[drafted.argmax(-1)][0, begin:][: len(alive)] == said
            right[step] += float(alive.sum())
        count += len(alive)
    return [float(share) for share in right / max(count, 1)]


def _store(head: Head, optimiser: Any, file: Path, losses: list[float]) -> None:
    parts = {f"head.{name}": value for name, value in head.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        parts |= {f"adam.{number}.{name}": value for name, value in state.items()}
    parts["losses"] = torch.tensor(losses)
    write_whole(file, save({name: value.contiguous() for name, value in parts.items()}))


def _resume(head: Head, optimiser: Any, file: Path) -> list[float]:
    """The losses of the steps that ``file`` has done, its weights and moments put in place."""
    if not file.exists():
        return []
    parts = load_file(file)
    head.load_state_dict({name.removeprefix("head."): parts[name] for name in parts if name.startswith("head.")})
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in parts.items():
        if name.startswith("adam."):
            _, number, key = name.split(".")
            states.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
    losses: list[float] = parts["losses"].tolist()
    return losses

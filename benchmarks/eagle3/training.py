"""Text that a target says, and a head trained on it: both are kept as they grow, so that either can be stopped."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name
from transformers import GenerationConfig

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

Sequences = list[list[int]]


@torch.inference_mode()
def said(
    target: Any,
    prompts: Sequence[list[int]],
    tokens: int,
    folder: Path,
    shards: int,
    report: Report,
    temperature: float = TEMPERATURE,
) -> Sequences:
    """What ``target`` says after ``prompts`` taken in turn, ``tokens`` long at most, sampled; ``shards`` · SHARD."""
    end = target.generation_config.eos_token_id
    pad = end[0] if isinstance(end, list) else (end or 0)
    sampling = GenerationConfig(
        do_sample=True, temperature=temperature, top_k=0, max_new_tokens=tokens, eos_token_id=end, pad_token_id=pad
    )
    found: Sequences = []
    for number in range(shards):
        report("the target speaks", number, shards)
        file = folder / f"said-{number:04}.npz"
        if not file.exists():
            torch.manual_seed(number)
            asked = [prompts[(number * SHARD + i) % len(prompts)] for i in range(SHARD)]
            longest = max(map(len, asked))
            ids = torch.tensor([[pad] * (longest - len(one)) + one for one in asked])
            mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in asked])
            out = target.generate(input_ids=ids, attention_mask=mask, generation_config=sampling)
            spoken = [_until_end(row[longest - len(one) :], len(one), pad) for row, one in zip(out, asked, strict=True)]
            _keep(file, spoken)
        found += _kept(file)
    report("the target speaks", shards, shards)
    return found


def _until_end(row: Tensor, start: int, pad: int) -> list[int]:
    ids: list[int] = row.tolist()
    ends = [at for at in range(start, len(ids)) if ids[at] == pad]
    return ids[: ends[0] + 1] if ends else ids


def _keep(file: Path, sequences: Sequences) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, ids=np.concatenate(sequences), lengths=[len(one) for one in sequences])
    write_whole(file, stream.getvalue())


def _kept(file: Path) -> Sequences:
    with np.load(file, allow_pickle=False) as stored:
        return [part.tolist() for part in np.split(stored["ids"], stored["lengths"].cumsum()[:-1])]


def vocabulary(sequences: Sequences, size: int) -> Tensor:
    """The ids of the ``size`` most frequent tokens, ascending."""
    counts = np.bincount(np.concatenate(sequences))
    return torch.from_numpy(np.sort(np.argsort(-counts, kind="stable")[:size].copy()))


def train(
    target: Any, head: Head, sequences: Sequences, file: Path, steps: int, size: int, report: Report
) -> float | None:
    """``steps`` of AdamW over batches of ``size`` sequences, by the target's distribution over what the head knows.

    Returned is the mean loss of the last KEEP_EVERY steps, nats a drafted token; None if all were done before.
    """
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    done = _resume(head, optimiser, file)
    head.train()
    losses: list[float] = []
    for step, batch in enumerate(_batches(sequences, size, steps)):
        if step < done:
            continue
        for group in optimiser.param_groups:
            group["lr"] = RATE * min((step + 1) / WARM, 1.0) * (1.0 - 0.95 * step / steps)
        loss = torch.stack(_losses(target, head, batch)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP)
        optimiser.step()
        losses.append(float(loss.detach()))
        report("training", step + 1, steps)
        if (step + 1) % KEEP_EVERY == 0 or step + 1 == steps:
            _store(head, optimiser, file, step + 1)
    head.eval()
    return float(np.mean(losses[-KEEP_EVERY:])) if losses else None


def _batches(sequences: Sequences, size: int, steps: int) -> Iterator[Tensor]:
    """Sequences in a random order, padded at their end with −1."""
    draws = np.random.default_rng(0)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < size:
            order += draws.permutation(len(sequences)).tolist()
        chosen, order = [sequences[at][:LONGEST] for at in order[:size]], order[size:]
        longest = max(map(len, chosen))
        yield torch.tensor([one + [-1] * (longest - len(one)) for one in chosen])


def _teach(target: Any, head: Head, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of the tokens one ahead, the features, and the target's logits of what follows these."""
    with torch.no_grad():
        out = target(input_ids=batch.clamp(min=0), output_hidden_states=True, use_cache=False)
        features = torch.cat([out.hidden_states[layer + 1] for layer in head.layers], -1)
        embeds = target.get_input_embeddings()(batch.clamp(min=0))
    return embeds[:, 1:].float(), features[:, :-1].float(), out.logits[:, 1:].float()


def _losses(target: Any, head: Head, batch: Tensor) -> list[Tensor]:
    embeds, features, logits = _teach(target, head, batch)
    found = []
    for step, drafted in enumerate(head.drafted(embeds, features)):
        wanted, there = logits[:, step:], batch[:, 1 + step :] >= 0
        # Of a token that it cannot say there is nothing to learn.
        there = there & torch.isin(wanted.argmax(-1), head.known)
        of = wanted[there][:, head.known].softmax(-1)
        found.append(F.cross_entropy(drafted[there], of))
    return found


@torch.inference_mode()
def accepted(target: Any, head: Head, sequences: Sequences) -> list[float]:
    """Shares of positions where the first 1, 2, … STEPS drafted tokens are those of the target's ``sequences``."""
    right = np.zeros(STEPS)
    count = 0
    for batch in _batches(sequences, 1, len(sequences)):
        embeds, features, _ = _teach(target, head, batch)
        alive = torch.ones(max(0, batch.shape[1] - STEPS - 1), dtype=torch.bool)
        for step, drafted in enumerate(head.drafted(embeds, features)):
            alive &= head.known[drafted.argmax(-1)][0, : len(alive)] == batch[0, 2 + step :][: len(alive)]
            right[step] += float(alive.sum())
        count += len(alive)
    return [float(share) for share in right / max(count, 1)]


def _store(head: Head, optimiser: Any, file: Path, step: int) -> None:
    parts = {f"head.{name}": value for name, value in head.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        parts |= {f"adam.{number}.{name}": value for name, value in state.items()}
    write_whole(file, save({name: value.contiguous() for name, value in parts.items()}, {"step": str(step)}))


def _resume(head: Head, optimiser: Any, file: Path) -> int:
    """The steps that ``file`` has done, its weights and moments put in place."""
    if not file.exists():
        return 0
    parts = load_file(file)
    head.load_state_dict({name.removeprefix("head."): parts[name] for name in parts if name.startswith("head.")})
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in parts.items():
        if name.startswith("adam."):
            _, number, key = name.split(".")
            states.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
    return int(states[0]["step"])

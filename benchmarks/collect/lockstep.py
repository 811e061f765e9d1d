"""Speculation on several prompts at once, with one γ: how the profiler gets much data out of few forwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import torch
from torch import Tensor
from transformers import PreTrainedModel

from speckv.benchmarks.collect.steps import Step
from speckv.integrations.signals import pack
from speckv.integrations.transformers.cache import new_cache


class MaskedCache:
    """A model with a cache whose columns can be forgotten per row, by masking instead of cropping.

    Rows accept different numbers of tokens, so their caches would have different lengths; here every row has every
    column, positions are given explicitly, and what a row must not see is masked.
    """

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self.model = model
        self.kept = new_cache(model)
        self.cache = next(iter(self.kept.values()))
        self.mask = torch.zeros(rows, 0, dtype=torch.long, device=model.device)

    def feed(self, tokens: Tensor, valid: Tensor, positions: Tensor, keep: int) -> Tensor:
        """Logits (B, ``keep``, V) of the last ``keep`` columns of ``tokens`` (B, k); all three arguments (B, k)."""
        self.mask = torch.cat((self.mask, valid.long()), dim=1)
        logits: Tensor = self.model(
            input_ids=tokens,
            attention_mask=self.mask,
            position_ids=positions.clamp(min=0),
            use_cache=True,
            logits_to_keep=keep,
            **self.kept,
        ).logits
        return logits

    def forget(self, last: int, keep: Tensor) -> None:
        """Of the ``last`` columns, keep the first ``keep[b]`` in row b and hide the others."""
        if last:
            columns = torch.arange(last, device=self.mask.device)[None, :]
            self.mask[:, -last:] *= (columns < keep[:, None]).long()

    def select(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]


def speculate(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    prompts: Sequence[Tensor],
    gamma: int,
    max_new_tokens: int,
    eos: frozenset[int],
    report: Callable[[int, int, Step], None],
) -> list[list[int]]:
    """Greedy draft-model speculation on ``prompts`` (1-d id tensors) until each has ``max_new_tokens`` or an EOS.

    ``report(prompt index, rows in this forward, round)`` is called for every round of every prompt; times are those
    of the whole batch. Returns the new tokens of each prompt.
    """
    device = target.device
    sequences = [prompt.tolist() for prompt in prompts]
    starts = [len(sequence) for sequence in sequences]
    active = list(range(len(sequences)))
    models = [MaskedCache(model, len(active)) for model in (target, draft)]
    with torch.inference_mode():
        _prefill(models, sequences)
        pending = [1] * len(sequences)  # how many last tokens the draft has not seen
        while active:
            widest = max(pending[index] for index in active)
            began = perf_counter()
            drafted, signals = _draft(models[1], [sequences[i] for i in active], widest, pending, active, gamma)
            drafted_at = perf_counter()
            lengths = torch.tensor([len(sequences[i]) for i in active], device=device)
            last = torch.tensor([[sequences[i][-1]] for i in active], device=device)
            fed = torch.cat((last, drafted.to(device)), dim=1)
            positions = lengths[:, None] - 1 + torch.arange(gamma + 1, device=device)
            choice = models[0].feed(fed, torch.ones_like(fed), positions, gamma + 1).argmax(-1)
            accepted = (choice[:, :-1] == fed[:, 1:]).long().cumprod(-1).sum(-1)
            choices = choice.tolist()
            times = ((drafted_at - began) * 1e3, (perf_counter() - drafted_at) * 1e3)
            models[0].forget(gamma, accepted)
            models[1].forget(gamma - 1, accepted.to(models[1].mask.device))
            going = []
            for row, index in enumerate(active):
                matched = int(accepted[row])
                outcome, tokens, ended = _outcome(
                    len(sequences[index]), drafted[row].tolist(), choices[row], signals[row], matched, eos
                )
                outcome.draft_ms, outcome.verify_ms = times
                report(index, len(active), outcome)
                sequences[index] += tokens
                pending[index] = 2 if matched == gamma else 1
                if not ended and len(sequences[index]) - starts[index] < max_new_tokens:
                    going.append(row)
            if len(going) < len(active):
                active = [active[row] for row in going]
                for model in models:
                    model.select(torch.tensor(going, dtype=torch.long, device=model.mask.device))
    return [sequence[start:] for sequence, start in zip(sequences, starts, strict=True)]


def _prefill(models: Sequence[MaskedCache], sequences: Sequence[list[int]]) -> None:
    width = max(len(sequence) for sequence in sequences) - 1  # the last token is the first round's to feed
    tokens = torch.tensor([[0] * (width + 1 - len(sequence)) + sequence[:-1] for sequence in sequences])
    valid = torch.tensor([[0] * (width + 1 - len(sequence)) + [1] * (len(sequence) - 1) for sequence in sequences])
    positions = valid.cumsum(-1) - 1
    for model in models:
        device = model.mask.device
        model.feed(tokens.to(device), valid.to(device), positions.to(device), 1)


def _draft(
    model: MaskedCache,
    sequences: Sequence[list[int]],
    widest: int,
    pending: Sequence[int],
    active: Sequence[int],
    gamma: int,
) -> tuple[Tensor, list[list[list[float]]]]:
    """Drafted ids (B, ``gamma``) and, per row, ``gamma`` lists as ``signals.pack`` makes them."""
    device = model.mask.device
    tokens = torch.tensor([sequence[-widest:] for sequence in sequences], device=device)
    counts = torch.tensor([pending[index] for index in active], device=device)[:, None]
    columns = torch.arange(widest, device=device)[None, :]
    valid = columns >= widest - counts
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)[:, None]
    positions = lengths - widest + columns
    packed = []
    for step in range(gamma):
        logits = model.feed(tokens, valid, positions, 1)[:, -1]
        tokens = logits.argmax(-1, keepdim=True)
        packed.append(pack(tokens, logits))
        valid = torch.ones_like(tokens)
        positions = lengths + step
    fetched = torch.stack(packed, dim=1)
    return fetched[..., 0].long(), fetched.tolist()


def _outcome(
    position: int,
    drafted: list[int],
    choices: list[int],
    signals: list[list[float]],
    accepted: int,
    eos: frozenset[int],
) -> tuple[Step, list[int], bool]:
    """The round, the tokens it emits and whether one of them ends the sequence."""
    stop = next((number + 1 for number, token in enumerate(drafted) if token in eos), len(drafted))
    tokens = [*drafted[:accepted], choices[accepted]]
    end = next((number + 1 for number, token in enumerate(tokens) if token in eos), None)
    tokens = tokens[:end]
    outcome = Step(
        position=position,
        entropies=[entropy for _, entropy, *_ in signals[:stop]],
        confidences=[best for _, _, best, *_ in signals[:stop]],
        accepted=min(accepted, stop),
        emitted=len(tokens),
    )
    return outcome, tokens, end is not None

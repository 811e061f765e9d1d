"""Prompts of a batch, fed without the padding that only longer ones need: what is fed; all else is as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers_helpers import KINDS, RandomPolicy, greedy, padded, pair, tiny_pair

from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policy import Round
from speckv.integrations.transformers import attach_policy, ragged


def takes(needed: list[int], divided: list[list[int]]) -> int:
    """Tokens that ``divided`` parts are taken to cost."""
    return sum(max(ragged.FREE, len(rows) * max(needed[row] for row in rows)) for rows in divided)


def partitions(rows: list[int]) -> Iterator[list[list[int]]]:
    if not rows:
        yield []
        return
    first, *rest = rows
    for others in partitions(rest):
        yield [[first], *others]
        for number, part in enumerate(others):
            yield [*others[:number], [first, *part], *others[number + 1 :]]


def test_parts_are_the_best_of_all_partitions() -> None:
    drawn = random.Random(0)
    for _ in range(60):
        needed = [drawn.choice((3, 90, 200, 300, 700, 1500)) for _ in range(drawn.randint(1, 6))]
        found = ragged.parts(needed)
        assert sorted(row for rows in found for row in rows) == [*range(len(needed))]
        assert takes(needed, found) == min(takes(needed, divided) for divided in partitions([*range(len(needed))]))


@pytest.mark.parametrize(
    ("needed", "divided"),
    [
        ([40, 9, 40], [[0, 1, 2]]),  # nothing is gained where weights bound the time
        ([900, 900], [[0, 1]]),
        ([90, 1000, 80], [[1], [0, 2]]),
        ([100] * 64, [[*range(64)]]),
    ],
)
def test_parts_by_hand(needed: list[int], divided: list[list[int]]) -> None:
    assert ragged.parts(needed) == divided


def fed_shapes(model: Any) -> list[tuple[int, ...]]:
    """The shapes of what ``model`` embeds from now on."""
    shapes: list[tuple[int, ...]] = []
    model.get_input_embeddings().register_forward_hook(lambda _, args, __: shapes.append(tuple(args[0].shape)))
    return shapes


def test_padding_is_not_fed() -> None:
    target, draft = tiny_pair(noise=0.05, max_position_embeddings=1024)
    inputs = padded([30, 500, 20, 25], longest=700)
    reference = greedy(target, inputs, 20)
    attach_policy(target, draft, FixedPolicy(2))
    greedy(target, inputs, 2, assistant_model=draft)  # at first models are tried out
    shapes = fed_shapes(target), fed_shapes(draft)
    assert torch.equal(reference, greedy(target, inputs, 20, assistant_model=draft))
    assert shapes[0][:2] == [(1, 500), (3, 30)]
    assert shapes[1][:2] == [(1, 500), (3, 30)] or shapes[1][:2] == [(1, 501), (3, 31)]
    assert max(columns for _, columns in shapes[0][2:] + shapes[1][2:]) <= 3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_output_and_acceptance(kind: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a copy as draft all is accepted: so the caches of both hold what they should."""
    monkeypatch.setattr(ragged, "FREE", 12)
    target, draft = pair(kind, attention, 0.0)
    inputs = padded([40, 4, 21, 9, 38], longest=44)
    assert len(ragged.parts([40, 4, 21, 9, 38])) > 2
    reference = greedy(target, inputs, 40)
    for policy in (FixedPolicy(4), RandomPolicy(0)):
        rounds: list[Round] = []
        attach_policy(target, draft, policy, rounds.append)
        assert torch.equal(reference, greedy(target, inputs, 40, assistant_model=draft))
        inside = [one for one in rounds if one.size == 5 and one.position + one.gamma < 44 + 40]
        assert sum(one.gamma for one in inside) > 10
        assert all(accepted == one.gamma for one in inside for accepted in one.accepted)

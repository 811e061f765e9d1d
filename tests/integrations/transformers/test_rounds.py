"""What the loop tells a policy of its rounds: enough to decide by, and true."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from transformers_helpers import RandomPolicy, check_level, greedy, prompt, tiny_pair

from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policy import BEST, Policy, Round
from speckv.integrations.transformers import attach_policy

INPUTS = prompt()
LENGTH = INPUTS["input_ids"].shape[1]


class Notes(RandomPolicy):
    """Follows a plan of the most levels a round may draft, then rests; writes down what it is shown and when."""

    def __init__(self, plan: Sequence[int], per_level: bool = True) -> None:
        super().__init__(0, stop=0.0, per_level=per_level, asks=per_level)
        self.plan = iter(plan)
        self.stale: list[int] = []
        self.began: list[Round] = []
        self.lengths: list[int] = []

    def begin(self, this: Round, room: int) -> int:
        assert this.size == 1 and not this.levels and this.position >= LENGTH
        self.stale.append(this.requests[0].stale)
        self.began.append(this)
        self.limit = min(next(self.plan, 0), room)
        return self.limit

    def observe(self, this: Round) -> None:
        super().observe(this)
        assert this is self.began[-1]
        assert this.requests[0].recent.values == pytest.approx(self.recent_before(this))

    def recent_before(self, this: Round) -> tuple[float, float]:
        """What the request may remember when its round is observed: the rounds before, and nothing of this one."""
        fresh = type(this.requests[0].recent)()
        for one in self.rounds[:-1]:
            if one.requests[0] is this.requests[0]:
                fresh.add(one.accepted[0], one.gamma)
        return fresh.values

    def ended(self, tokens: int) -> None:
        self.lengths.append(tokens)


@pytest.mark.parametrize("per_level", [True, False])
def test_rounds_are_told_as_they_were(per_level: bool) -> None:
    target, draft = tiny_pair(noise=0.05)
    policy = Notes([3, 0, 0, 4, 2, 0, 5], per_level)
    attach_policy(target, draft, policy)
    output = greedy(target, INPUTS, 40, assistant_model=draft)
    rounds = policy.rounds
    assert policy.lengths == [40] == [output.shape[1] - LENGTH]
    assert [one.resting for one in rounds[:7]] == [False, True, True, False, False, True, False]
    assert [len(one.levels) for one in rounds[:7]] == [one.gamma for one in rounds[:7]] == [3, 0, 0, 4, 2, 0, 5]
    assert rounds[0].position == LENGTH
    assert all(before.position + before.emitted == after.position for before, after in pairwise(rounds))
    assert sum(one.emitted for one in rounds) == 40
    assert [one.verify_prefill for one in rounds] == [True] + [False] * (len(rounds) - 1)
    assert [one.draft_prefill for one in rounds] == [True] + [False] * (len(rounds) - 1)
    for one in rounds:
        assert one is rounds[-1] or (1 <= one.ranks[0] <= BEST if one.accepted[0] < one.gamma else one.ranks == [0])
        assert one.accepted[0] + 1 <= one.emitted <= one.accepted[0] + 1 + sum(one.sibling_hits)
        assert (one.draft_ms is None) == one.resting and one.verify_ms is not None and one.verify_ms > 0
        for level in one.levels:
            check_level(level)


@pytest.mark.parametrize("per_level", [True, False])
def test_what_is_new_to_the_draft(per_level: bool) -> None:
    target, draft = tiny_pair(noise=0.05)
    policy = Notes([0, 0, 3, 0, 0, 0, 4, 4, 4, 4], per_level)
    attach_policy(target, draft, policy)
    greedy(target, INPUTS, 40, assistant_model=draft)
    rounds, stale = policy.rounds, policy.stale
    assert stale[:3] == [LENGTH - 1, LENGTH, LENGTH + 1]  # all but the newest token
    assert rounds[2].draft_prefill and not any(one.draft_prefill for one in rounds[3:])
    whole = {index: one.accepted[0] == one.gamma > 0 for index, one in enumerate(rounds)}
    assert stale[3:7] == [whole[2] + rested for rested in range(4)]
    assert stale[7:10] == [int(whole[index]) for index in (6, 7, 8)]  # the last of a round accepted whole was not fed
    for one, of in zip(rounds, stale, strict=True):
        assert one.caught_up == (0 if one.resting else of)


def test_a_request_is_one_text_and_remembers_its_rounds() -> None:
    target, draft = tiny_pair(noise=0.05)
    policy = Notes([4, 3] * 50)
    seen: list[tuple[float, float]] = []

    def listen(this: Round) -> None:
        request = this.requests[0]
        seen.append(request.recent.values)
        assert request.last is not None
        if this.levels:  # else it remembers those of an earlier round
            assert all((row == level[0]).all() for row, level in zip(request.last, this.levels, strict=True))

    attach_policy(target, draft, policy, listen)
    for _ in range(2):
        greedy(target, INPUTS, 9, assistant_model=draft)
    requests = {id(one.requests[0]): one.requests[0] for one in policy.rounds if one.levels}
    assert len(requests) == 2 and len(set(seen)) > 2
    assert policy.lengths == [9, 9]


def test_signals_are_the_drafts_own_of_its_raw_logits() -> None:
    """At temperature 1 and before processors, read one by one or together."""
    target, draft = tiny_pair(noise=0.05)
    for asks in (True, False):
        policy = Notes([3], per_level=asks)
        attach_policy(target, draft, policy)
        torch.manual_seed(0)
        output = greedy(target, INPUTS, 10, assistant_model=draft, do_sample=True, temperature=0.3, top_k=5)
        with torch.no_grad():
            p = draft(output).logits[0].double().softmax(-1)
        first = policy.rounds[0]
        for depth in range(first.accepted[0] + 1 if first.accepted[0] < 3 else 3):
            row = p[LENGTH - 1 + depth]
            expected = [float(torch.special.entr(row).sum()), *row.topk(4).values.tolist()]
            assert first.levels[depth][0].tolist() == pytest.approx(expected, rel=1e-3)


def test_a_policy_that_wants_more_than_there_is_room_for_gets_what_there_is() -> None:
    target, draft = tiny_pair(noise=0.02)
    reference = greedy(target, INPUTS, 20)

    class Greedy(FixedPolicy):
        asks = per_level = True

        def begin(self, this: Round, room: int) -> int:
            return 50

        def deepen(self, this: Round) -> int:
            return 60

    rounds: list[Round] = []
    policy: Policy = Greedy(8)
    attach_policy(target, draft, policy, rounds.append)
    assert torch.equal(reference, greedy(target, INPUTS, 20, assistant_model=draft))
    assert rounds[0].gamma == 19

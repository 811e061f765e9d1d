"""Trees in the loop: float32 output is the target's own, token for token, whatever branches off where."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from architectures import build
from transformers_helpers import KINDS, RandomPolicy, greedy, pair, prompt

from speckv.controller.policy import Round
from speckv.integrations.models.loading import perturbed
from speckv.integrations.transformers import attach, attach_policy, stats
from speckv.integrations.transformers import target as target_module
from speckv.integrations.transformers.branches import can_branch
from speckv.integrations.transformers.cache import new_cache
from speckv.integrations.transformers.draft import DraftModel
from speckv.integrations.transformers.tree import Tree

PROMPTS = [prompt(5, 1), prompt(12, 2), prompt(40, 3)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_random_trees(kind: str, attention: str) -> None:
    target, draft = pair(kind, attention, 0.2)
    assert can_branch(target)
    hits = offered = 0
    for seed, inputs in enumerate(PROMPTS):
        reference = greedy(target, inputs, 60)
        for share in (0.2, 0.6, 1.0):
            policy = RandomPolicy(seed, siblings=share, per_level=seed % 2 == 0)
            attach_policy(target, draft, policy)
            assert torch.equal(reference, greedy(target, inputs, 60, assistant_model=draft)), (seed, share)
            hits += sum(sum(this.sibling_hits) for this in policy.rounds)
            offered += sum(this.offered_siblings for this in policy.rounds)
            for this in policy.rounds:
                assert this.emitted <= this.accepted[0] + 1 + sum(this.sibling_hits)
    assert hits > 5 and offered > 100


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_arbitrary_trees(monkeypatch: pytest.MonkeyPatch, kind: str, attention: str) -> None:
    """Nodes below any row, right ones and wrong ones: a round may leave the spine early and go on for long."""
    target, draft = pair(kind, attention, 0.2)
    draws = random.Random(0)
    policy = RandomPolicy(0, siblings=0.5)
    reached: list[int] = []

    def grown(spine: list[int], others: Any, chosen: Any) -> Tree:
        if chosen is None:
            return Tree.chain(spine)
        said = reference[0, policy.position :].tolist()
        tokens, parents = [*spine], [*range(len(spine))]
        for _ in range(draws.randint(0, 12)):
            tree = Tree(tokens, parents, len(spine))
            parent = draws.randint(0, len(tokens))
            path = tree.path(parent)
            right = said[len(path)] if path == said[: len(path)] and len(path) < len(said) else 0
            token = right if draws.random() < 0.5 else draws.randrange(256)
            if tree.child(parent, token) is None:
                tokens, parents = [*tokens, token], [*parents, parent]
        return Tree(tokens, parents, len(spine))

    class Watched(RandomPolicy):
        def begin(self, this: Round, room: int) -> int:
            self.position = this.position
            return super().begin(this, room)

        def observe(self, this: Round) -> None:
            reached.append(this.emitted - this.accepted[0] - 1)

    monkeypatch.setattr(Tree, "beside", staticmethod(grown))
    for seed, inputs in enumerate(PROMPTS):
        reference = greedy(target, inputs, 80)
        policy = Watched(seed, siblings=0.5, most=4)
        attach_policy(target, draft, policy)
        assert torch.equal(reference, greedy(target, inputs, 80, assistant_model=draft))
    assert max(reached) >= 2 and sum(extra > 0 for extra in reached) > 5


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_test_catches_a_mask_that_lets_branches_see_each_other(
    monkeypatch: pytest.MonkeyPatch, attention: str
) -> None:
    target, draft = pair("full", attention, 0.2)
    assert can_branch(target)
    monkeypatch.setattr(Tree, "sees", lambda tree: np.tril(np.ones((tree.rows, tree.rows), dtype=np.bool_)))
    attach_policy(target, draft, RandomPolicy(0, siblings=1.0))
    assert not torch.equal(greedy(target, PROMPTS[1], 60), greedy(target, PROMPTS[1], 60, assistant_model=draft))


def test_the_test_catches_states_left_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = pair("full", "sdpa", 0.2)
    monkeypatch.setattr(target_module, "gather", lambda cache, rows, count: None)
    attach_policy(target, draft, RandomPolicy(0, siblings=1.0, most=4))
    assert not torch.equal(greedy(target, PROMPTS[1], 60), greedy(target, PROMPTS[1], 60, assistant_model=draft))


@pytest.mark.parametrize("kind", KINDS)
def test_the_drafts_cache_is_of_the_text(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What came in the spine's place is fed to the draft, which had gone on from the spine."""
    target, draft = pair(kind, "sdpa", 0.2)
    made: list[DraftModel] = []
    init = DraftModel.__init__
    monkeypatch.setattr(DraftModel, "__init__", lambda self, *args: (made.append(self), init(self, *args))[1])
    for seed in range(6):
        policy = RandomPolicy(seed, siblings=1.0, most=4)
        attach_policy(target, draft, policy)
        said = greedy(target, PROMPTS[1], 30, assistant_model=draft)
        ours, (kept,) = made[-1], made[-1].kept.values()
        known = new_cache(draft)
        with torch.no_grad():
            draft(said[:, : ours.cached], **known)
        for found, wanted in zip(kept.layers, next(iter(known.values())).layers, strict=True):
            shared = min(found.keys.shape[2], wanted.keys.shape[2])
            torch.testing.assert_close(found.keys[:, :, -shared:], wanted.keys[:, :, -shared:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "branches"),
    [
        ("gemma2", True),
        ("gpt_neox", True),
        ("mixtral", True),
        ("bloom", False),
        ("deepseek_v32", False),
        ("lfm2", False),
    ],
)
def test_which_models_verify_trees(kind: str, branches: bool) -> None:
    target = build(kind)
    attach(target, perturbed(target, 0.1), same_tokenizer=True)
    assert stats(target).trees is branches
    assert can_branch(target) == branches


def test_attention_that_takes_no_mask_gets_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """As flash attention, which looks at no more of a mask than where a text begins."""
    target = pair("full", "sdpa", 0.2)[0]
    genuine = torch.nn.functional.scaled_dot_product_attention

    def deaf(query: Any, key: Any, value: Any, attn_mask: Any = None, **more: Any) -> Any:
        return genuine(query, key, value, **{**more, "is_causal": query.shape[2] > 1})

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", deaf)
    assert not can_branch(target)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_model_that_quantises_all_rows_by_one_another(monkeypatch: pytest.MonkeyPatch, deaf: bool) -> None:
    """As LLM.int8(): what a row says depends on the others in its forward, and a tree still is one of its own."""
    target = pair("full", "sdpa", 0.2)[0]

    def quantised(_: Any, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        scale = inputs[0].abs().max() / 20
        return (inputs[0] / scale).round() * scale

    for layer in target.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(quantised)
    if deaf:
        monkeypatch.setattr(Tree, "sees", lambda tree: np.tril(np.ones((tree.rows, tree.rows), dtype=np.bool_)))
    assert can_branch(target) is not deaf


def test_what_a_tree_is() -> None:
    tree = Tree([5, 6, 7, 8, 9], [0, 1, 0, 3, 2], 2)
    assert tree.rows == 6 and tree.branches and not Tree.chain([1, 2]).branches
    assert [tree.path(row) for row in range(6)] == [[], [5], [5, 6], [7], [7, 8], [5, 6, 9]]
    assert tree.child(0, 7) == 3 and tree.child(2, 9) == 5 and tree.child(3, 9) is None
    seen = [[row for row in range(6) if sees[row]] for sees in tree.sees()]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4], [0, 1, 2, 5]]

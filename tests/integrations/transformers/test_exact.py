"""Greedy output through the hook is the target's own, token for token, in float32."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, StoppingCriteria, StoppingCriteriaList
from transformers_helpers import RandomPolicy, greedy, prompt, tiny, tiny_pair

from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policy import Policy, Round
from speckv.integrations.models.loading import perturbed
from speckv.integrations.transformers import attach, attach_policy, stats
from speckv.integrations.transformers import target as target_module

PROMPTS = [prompt(5, 1), prompt(12, 2), prompt(40, 3)]


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("noise", [0.02, 0.1, 3.0])
def test_every_fixed_gamma_and_random_ones(family: str, noise: float) -> None:
    target, draft = tiny_pair(family, noise)
    for inputs in PROMPTS[1:] if noise > 1 else PROMPTS:  # nothing is accepted there, which takes longest
        reference = greedy(target, inputs)
        policies = [FixedPolicy(gamma) for gamma in range(9)]
        for policy in (
            *policies,
            RandomPolicy(1),
            RandomPolicy(2, per_level=False),
            RandomPolicy(4, per_level=False, asks=False),
            RandomPolicy(3, most=20),
        ):
            attach_policy(target, draft, policy)
            assert torch.equal(reference, greedy(target, inputs, assistant_model=draft)), policy


class LeavesOut(Policy):
    """Drafts ``depth`` levels and leaves out the newest; asked after the first only, it wants ``depth`` − 1."""

    def __init__(self, depth: int, per_level: bool) -> None:
        self.depth, self.per_level = depth, per_level

    def begin(self, this: Round, room: int) -> int:
        return room

    def deepen(self, this: Round) -> int:
        return self.depth - (len(this.levels) == self.depth or not self.per_level)


@pytest.mark.parametrize("per_level", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_newest_level_left_out(depth: int, per_level: bool) -> None:
    target, draft = tiny_pair(noise=0.05)
    rounds: list[Round] = []
    attach_policy(target, draft, LeavesOut(depth, per_level), rounds.append)
    for inputs in PROMPTS:
        assert torch.equal(greedy(target, inputs), greedy(target, inputs, assistant_model=draft))
    full = [one for one in rounds if one.position + depth < 40]
    assert {len(one.levels) for one in full} == {depth if per_level else max(1, depth - 1)}
    assert {one.gamma for one in full} == {depth - 1}
    assert all(one.emitted == one.accepted[0] + 1 for one in full)
    assert any(one.accepted[0] for one in full) == (depth > 1)


def test_levels_before_the_newest_cannot_be_left_out() -> None:
    """It would be a drawn token that is not verified because of those drawn after it."""
    target, draft = tiny_pair(noise=0.05)

    class Regrets(LeavesOut):
        def deepen(self, this: Round) -> int:
            return 0 if len(this.levels) == self.depth else self.depth

    rounds: list[Round] = []
    attach_policy(target, draft, Regrets(3, per_level=True), rounds.append)
    assert torch.equal(greedy(target, PROMPTS[0]), greedy(target, PROMPTS[0], assistant_model=draft))
    assert {one.gamma for one in rounds if len(one.levels) == 3} == {2}


@pytest.mark.parametrize("settings", [{}, {"mode": "step"}, {"objective": "tokens"}, {"max_gamma": 20}, {"gamma": 3}])
def test_the_policies_of_attach(settings: dict[str, Any]) -> None:
    target, draft = tiny_pair(noise=0.05)
    attach(target, draft, **settings)
    for inputs in PROMPTS:
        assert torch.equal(greedy(target, inputs, 60), greedy(target, inputs, 60, assistant_model=draft))
    assert stats(target).emitted == 180


def test_drafts_and_acceptance_are_real() -> None:
    target, draft = tiny_pair(noise=0.05)
    attach_policy(target, draft, FixedPolicy(4))
    greedy(target, PROMPTS[1], 60, assistant_model=draft)
    counted = stats(target)
    assert counted.gammas[4] >= 10
    assert 0.3 < counted.acceptance_rate < 1
    assert counted.rounds < 60 == counted.emitted
    assert counted.emitted == counted.accepted + counted.rounds
    assert counted.draft_ms > 0 and counted.verify_ms > 0


@pytest.mark.parametrize(
    "extra",
    [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 3},
        {"min_new_tokens": 30},
        {"bad_words_ids": [[7], [9, 11]]},
        {"max_new_tokens": 1},
        {"max_new_tokens": 2},
        {"sequence_bias": {(5,): 4.0}},
    ],
)
def test_processors_and_lengths(extra: dict[str, Any]) -> None:
    target, draft = tiny_pair(noise=0.05)
    for seed in range(3):
        reference = greedy(target, PROMPTS[1], **extra)
        attach_policy(target, draft, RandomPolicy(seed))
        assert torch.equal(reference, greedy(target, PROMPTS[1], assistant_model=draft, **extra))


def test_left_padding() -> None:
    target, draft = tiny_pair(noise=0.05)
    ids = torch.cat((torch.zeros(1, 6, dtype=torch.long), PROMPTS[1]["input_ids"]), dim=1)
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    attach_policy(target, draft, RandomPolicy(0))
    assert torch.equal(greedy(target, inputs), greedy(target, inputs, assistant_model=draft))
    assert stats(target).acceptance_rate > 0.3  # a draft that saw the padding would agree less


@pytest.mark.parametrize("extra", ["nothing", "padding", "position_ids", "token_type_ids"])
def test_a_text_is_fed_as_transformers_own_preparation_feeds_it(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 256, "n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2, "eos_token_id": None}
    target = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None)).eval()
    draft, inputs = perturbed(target, 0.05), prompt()
    if extra == "padding":
        inputs["attention_mask"][:, :4] = 0
    elif extra == "position_ids":
        inputs[extra] = torch.arange(3, 15)[None, :]
    elif extra == "token_type_ids":
        inputs[extra] = torch.arange(12)[None, :] % 3
    compared = 0

    def both(keywords: dict[str, Any], new: torch.Tensor) -> dict[str, Any]:
        nonlocal compared
        compared += 1
        ours = as_text(keywords, new)
        theirs = target.prepare_inputs_for_generation(new, next_sequence_length=new.shape[1], **keywords)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(ours[name], value) and ours[name].stride() == value.stride()
            else:
                assert ours[name] is value
        return ours

    as_text = target_module._as_text
    monkeypatch.setattr(target_module, "_as_text", both)
    reference = greedy(target, inputs)
    attach_policy(target, draft, RandomPolicy(0, siblings=0.0))
    assert torch.equal(reference, greedy(target, inputs, assistant_model=draft))
    assert compared == (fed := stats(target).rounds - 1) > 0
    # What a model prepares in a way of its own it is asked for.
    monkeypatch.setattr(
        target, "prepare_inputs_for_generation", partial(type(target).prepare_inputs_for_generation, target)
    )
    assert torch.equal(reference, greedy(target, inputs, assistant_model=draft))
    assert compared == fed


@pytest.mark.parametrize("asked", [{}, {"per_level": False}, {"per_level": False, "asks": False}])
def test_eos_in_the_middle_of_a_draft(asked: dict[str, bool]) -> None:
    target, draft = tiny_pair(noise=0.02)
    long = greedy(target, PROMPTS[1], 40)[0, 12:].tolist()
    for place in (3, 7, 20):
        eos = long[place]
        reference = greedy(target, PROMPTS[1], eos_token_id=eos)
        for seed in range(4):
            attach_policy(target, draft, RandomPolicy(seed, stop=0.05, **asked))
            found = greedy(target, PROMPTS[1], eos_token_id=eos, assistant_model=draft)
            assert torch.equal(reference, found)


class StopAt(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((1,), input_ids.shape[1] >= self.length, dtype=torch.bool)


def test_stopping_criteria_end_within_a_round() -> None:
    target, draft = tiny_pair(noise=0.05)
    reference = greedy(target, PROMPTS[1])
    attach_policy(target, draft, FixedPolicy(4))
    stopped = greedy(target, PROMPTS[1], assistant_model=draft, stopping_criteria=StoppingCriteriaList([StopAt(20)]))
    assert torch.equal(reference[:, :20], stopped)


@pytest.mark.parametrize("sizes", [(256, 300), (300, 256)])
def test_one_tokenizer_padded_to_two_sizes(sizes: tuple[int, int]) -> None:
    target = tiny(vocab_size=sizes[0])
    draft = tiny(seed=1, vocab_size=sizes[1])
    attach_policy(target, draft, RandomPolicy(0), same_tokenizer=True)
    for inputs in PROMPTS:
        for extra in ({}, {"repetition_penalty": 1.2}):
            assert torch.equal(greedy(target, inputs, **extra), greedy(target, inputs, assistant_model=draft, **extra))
        torch.manual_seed(0)
        sampled = greedy(target, inputs, assistant_model=draft, do_sample=True, top_k=50)
        assert sampled.max() < sizes[0]


def test_draft_of_another_dtype() -> None:
    target, draft = tiny_pair(noise=0.02)
    draft = draft.to(torch.bfloat16)
    attach_policy(target, draft, RandomPolicy(0))
    assert torch.equal(greedy(target, PROMPTS[1]), greedy(target, PROMPTS[1], assistant_model=draft))
    assert stats(target).accepted > 10


def test_scores_are_the_targets_own() -> None:
    target, draft = tiny_pair(noise=0.05)
    options = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    plain = greedy(target, PROMPTS[1], **options)
    attach_policy(target, draft, RandomPolicy(0))
    ours = greedy(target, PROMPTS[1], assistant_model=draft, **options)
    assert torch.equal(plain.sequences, ours.sequences)
    assert len(plain.scores) == len(ours.scores) == 40
    for kind in ("scores", "logits"):
        for one, other in zip(getattr(plain, kind), getattr(ours, kind), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", [FixedPolicy(0), FixedPolicy(4), RandomPolicy(0)])
def test_a_cache_handed_in(policy: Policy) -> None:
    target, draft = tiny_pair(noise=0.05)
    first = greedy(target, PROMPTS[1], 10, return_dict_in_generate=True)
    more = torch.cat((first.sequences, PROMPTS[0]["input_ids"]), dim=1)  # the next turn of a chat
    longer = {"input_ids": more, "attention_mask": torch.ones_like(more)}
    reference = greedy(target, longer, 30)
    attach_policy(target, draft, policy)
    cache = copy.deepcopy(first.past_key_values)
    found = greedy(target, longer, 30, assistant_model=draft, past_key_values=cache)
    assert torch.equal(reference, found)
    assert cache.get_seq_length() == found.shape[1] - 1  # it was used, and nothing is in it twice
    assert torch.equal(reference, greedy(target, longer, 30, assistant_model=draft))


@pytest.mark.parametrize("inputs", PROMPTS)
def test_repeated_calls(inputs: Any) -> None:
    target, draft = tiny_pair(noise=0.05)
    attach(target, draft)
    reference = greedy(target, inputs)
    for _ in range(5):
        assert torch.equal(reference, greedy(target, inputs, assistant_model=draft))

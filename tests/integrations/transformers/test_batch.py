"""Several prompts at once: each text is what plain batched decoding makes of it, in float32 token for token."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList
from transformers_helpers import KINDS, RandomPolicy, greedy, pair, tiny_pair

from speckv.controller.policies.fixed import FixedPolicy
from speckv.integrations.transformers import attach, attach_policy, stats


def prompts(count: int, padding: str = "left", longest: int = 24, seed: int = 0) -> dict[str, torch.Tensor]:
    """``count`` prompts of 4 … ``longest`` tokens, padded to one length."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 256, (count, longest), generator=generator)
    mask = torch.ones_like(ids)
    if padding != "none":
        for row in range(1, count):
            missing = int(torch.randint(0, longest - 3, (1,), generator=generator))
            gone = slice(0, missing) if padding == "left" else slice(longest - missing, longest)
            ids[row, gone], mask[row, gone] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "padding"), [(2, "left"), (4, "right"), (8, "none"), (8, "left")])
def test_random_trees(kind: str, attention: str, count: int, padding: str) -> None:
    target, draft = pair(kind, attention, 0.2)
    inputs = prompts(count, padding)
    reference = greedy(target, inputs, 50)
    for seed in range(2):
        policy = RandomPolicy(seed, per_level=seed == 0)
        attach_policy(target, draft, policy)
        assert torch.equal(reference, greedy(target, inputs, 50, assistant_model=draft))
        assert {this.size for this in policy.rounds} >= {count}
        assert any(len(set(this.accepted)) > 1 for this in policy.rounds)
    assert stats(target).accepted > 5


@pytest.mark.parametrize("padding", ["left", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_the_target_as_draft_is_accepted(kind: str, padding: str) -> None:
    """So the draft sees what it should, and its cache is in step with every text, also after rounds without it."""
    target, draft = pair(kind, "sdpa", 0.0)
    inputs = prompts(4, padding)
    reference = greedy(target, inputs, 60)
    for policy in (FixedPolicy(4), RandomPolicy(0)):
        attach_policy(target, draft, policy)
        assert torch.equal(reference, greedy(target, inputs, 60, assistant_model=draft))
    assert stats(target).accepted >= 0.99 * sum(gamma * count for gamma, count in stats(target).gammas.items()) - 8


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_texts_that_end_leave_the_batch(noise: float) -> None:
    target, draft = tiny_pair(noise=noise)
    inputs = prompts(6, "left", seed=3)
    said = greedy(target, inputs, 60)[:, 24:]
    for eos in {int(said[0, 3]), int(said[1, 10]), int(said[3, 25])}:
        reference = greedy(target, inputs, 60, eos_token_id=eos, pad_token_id=7)
        for seed in range(3):
            policy = RandomPolicy(seed)
            attach_policy(target, draft, policy)
            found = greedy(target, inputs, 60, eos_token_id=eos, pad_token_id=7, assistant_model=draft)
            assert torch.equal(reference, found)
        assert len({this.size for this in policy.rounds}) > 1


@pytest.mark.parametrize("settings", [{}, {"mode": "step"}, {"objective": "tokens"}, {"gamma": 3}, {"siblings": False}])
def test_the_policies_of_attach(settings: dict[str, Any]) -> None:
    target, draft = tiny_pair(noise=0.05)
    attach(target, draft, **settings)
    for count in (2, 16):
        inputs = prompts(count)
        assert torch.equal(greedy(target, inputs, 40), greedy(target, inputs, 40, assistant_model=draft))
    assert stats(target).emitted == 18 * 40


def test_long_enough_that_columns_are_taken_out() -> None:
    target, draft = tiny_pair(noise=3.0)
    inputs = prompts(3)
    attach_policy(target, draft, FixedPolicy(8))
    assert torch.equal(greedy(target, inputs, 120), greedy(target, inputs, 120, assistant_model=draft))


@pytest.mark.parametrize("extra", [{"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 3}, {"min_new_tokens": 30}])
def test_processors(extra: dict[str, Any]) -> None:
    target, draft = tiny_pair(noise=0.05)
    inputs = prompts(4)
    attach_policy(target, draft, RandomPolicy(0))
    assert torch.equal(greedy(target, inputs, **extra), greedy(target, inputs, assistant_model=draft, **extra))
    assert stats(target).accepted > 5


def never(ids: Any, scores: Any, **_: Any) -> Any:
    return torch.zeros(len(ids), dtype=torch.bool)


class Own(LogitsProcessor):  # type: ignore[misc]
    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return scores + 0.1 * len(input_ids)


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"return_dict_in_generate": True, "output_scores": True}, "scores and caches of several prompts"),
        ({"logits_processor": LogitsProcessorList([Own()])}, "may keep a state"),
        ({"stopping_criteria": [never]}, "stopping criterion"),
        ({"past_key_values": DynamicCache}, "a cache was handed in"),
    ],
)
def test_what_is_decoded_plainly(extra: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture) -> None:
    target, draft = tiny_pair(noise=0.05)
    inputs = prompts(3)
    attach_policy(target, draft, FixedPolicy(3))

    def made() -> dict[str, Any]:
        return {name: one() if one is DynamicCache else one for name, one in extra.items()}

    with caplog.at_level(logging.WARNING, "speckv"):
        found = greedy(target, inputs, assistant_model=draft, **made())
    reference = greedy(target, inputs, **made())
    if isinstance(reference, torch.Tensor):
        assert torch.equal(found, reference)
    else:
        assert torch.equal(found.sequences, reference.sequences)
        assert all(torch.equal(one, other) for one, other in zip(found.scores, reference.scores, strict=True))
    assert why in caplog.text and stats(target).rounds == 0


def test_a_streamer_is_given_what_plain_decoding_gives_it(caplog: pytest.LogCaptureFixture) -> None:
    class Streamer:
        def __init__(self) -> None:
            self.shapes: list[Any] = []

        def put(self, value: Any) -> None:
            self.shapes.append(tuple(value.shape))

        def end(self) -> None:
            self.shapes.append("end")

    target, draft = tiny_pair(noise=0.05)
    attach_policy(target, draft, FixedPolicy(3))
    plain, ours = Streamer(), Streamer()
    greedy(target, prompts(3), 5, streamer=plain)
    greedy(target, prompts(3), 5, streamer=ours, assistant_model=draft)
    assert ours.shapes == plain.shapes and "a streamer is given several prompts" in caplog.text


def test_a_cache_handed_in_is_filled() -> None:
    target, draft = tiny_pair(noise=0.05)
    attach_policy(target, draft, FixedPolicy(3))
    cache = DynamicCache()
    greedy(target, prompts(3), 5, past_key_values=cache, assistant_model=draft)
    assert cache.get_seq_length() == 24 + 5 - 1

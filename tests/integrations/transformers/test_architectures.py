"""Every architecture: output equal to plain decoding and a copy of the target accepted as draft, or one clear line.

Tiny random float32 models of all that the installed transformers registers, see ``architectures.py``.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from architecture_sizes import SKIPPED
from architectures import build, build_vision, model_types, text_draft
from transformers_helpers import RandomPolicy, greedy, padded, prompt, tiny

from speckv.controller.errors import SpecKVError
from speckv.controller.policies import FixedPolicy
from speckv.controller.stats import Stats
from speckv.integrations.models.loading import perturbed
from speckv.integrations.transformers import ragged, stats
from speckv.integrations.transformers.hook import attach_policy

LENGTH = 20  # longer than a window, which is 16
ROPE = {"rope_theta": 1e4}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rope": ("llama", {}),
    "dynamic rope": (
        "llama",
        {"max_position_embeddings": 40, "rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 2.0}},
    ),
    "longrope": (
        "phi3",
        {
            "max_position_embeddings": 512,
            "original_max_position_embeddings": 40,
            "rope_parameters": {
                **ROPE,
                "rope_type": "longrope",
                "short_factor": [1.0] * 8,
                "long_factor": [4.0] * 8,
                "original_max_position_embeddings": 40,
            },
        },
    ),
    "learned positions": ("gpt2", {}),
    "learned positions, offset": ("opt", {}),
    "positions after the padding": ("roberta", {}),
    "alibi": ("bloom", {}),
    "alibi, mpt": ("mpt", {}),
    "alibi, falcon": ("falcon", {"alibi": True}),
    "sliding window": ("mistral", {}),
    "sliding and full, soft-capped": ("gemma2", {}),
    "sliding and full": ("gemma3_text", {}),
    "windows of its own": ("gpt_neo", {}),
    "padding of its own": ("git", {}),
    "mixture of experts": ("mixtral", {}),
    "shared experts": ("qwen2_moe", {}),
    "scaled logits": ("granite", {}),
    "scaled logits, parallel": ("cohere", {}),
    "multi-head latent": ("deepseek_v3", {}),
    "multi-head latent, indexed": ("deepseek_v32", {}),
    "convolution": ("lfm2", {}),
    "decoder of an encoder-decoder": ("bart", {}),
    "state space": ("mamba", {}),
    "state space and attention": ("jamba", {}),
    "state space and attention, 2": ("bamba", {}),
    "state space beside attention": ("falcon_h1", {}),
    "linear attention": ("qwen3_next", {}),
    "cache of its own": ("minimax", {}),
}
STATES = (
    "bailing_hybrid bamba deepseek_v4 falcon_h1 falcon_mamba granitemoehybrid jamba kimi_linear lara_mini mamba mamba2 "
    "minimax nemotron_h olmo_hybrid qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_next qwen4_exp "
    "qwen4_exp_text recurrent_gemma rwkv xlstm zamba zamba2 zaya"
)
OTHER_CACHES = "cpmant openai-gpt prophetnet reformer xlm xlnet"
PLAIN = frozenset(f"{STATES} {OTHER_CACHES}".split())
"""Types that cannot be rolled back: refused as a draft; decoded plainly, or refused in one line, as a target."""

VISION = ["gemma3", "idefics3", "internvl", "lfm2_vl", "mistral3", "mllama", "paligemma", "qwen2_5_vl", "qwen3_vl"]
KEEPS_MORE = ("mllama", "paligemma")
"""These keep more between their forwards than a cache, and are decoded plainly."""


def one_line(error: SpecKVError, model: Any) -> None:
    """Check that ``error`` says in one line which model it is about."""
    assert type(model).__name__ in str(error)
    assert "\n" not in str(error)


def check_plain(target: Any, draft: Any, policy: Any, inputs: Any) -> Stats:
    """Check that a greedy text with ``draft`` is the one without, and that it is a text that shows anything."""
    plain = greedy(target, inputs)[0].tolist()
    assert len(set(plain[LENGTH:])) > 8, "the text goes round in a circle: give this type another seed"
    attach_policy(target, draft, policy)
    assert greedy(target, inputs, assistant_model=draft)[0].tolist() == plain
    return stats(target)


def rolled_back(counted: Stats) -> bool:
    """Whether a token was verified and not accepted."""
    return counted.accepted < sum(gamma * rounds for gamma, rounds in counted.gammas.items())


def check(model_type: str, **changes: Any) -> None:
    if model_type in PLAIN:
        check_refused(build(model_type, **changes))
        return
    target = build(model_type, **changes)
    counted = check_plain(target, copy.deepcopy(target), FixedPolicy(4), prompt(LENGTH))
    assert counted.drafted > 10  # a rotary embedding that switches by length ends it early
    assert counted.acceptance_rate >= 0.99
    for noise in (0.1, 0.4):
        target = build(model_type, **changes)
        counted = check_plain(target, perturbed(target, noise), RandomPolicy(seed=1), prompt(LENGTH))
        if rolled_back(counted):
            return
    pytest.fail("nothing was rolled back")


def check_refused(model: Any) -> None:
    draft = tiny("llama")
    with pytest.raises(SpecKVError) as refused:
        attach_policy(draft, model, FixedPolicy(4))
    one_line(refused.value, model)
    try:
        check_plain(model, draft, FixedPolicy(4), prompt(LENGTH))
    except SpecKVError as error:
        one_line(error, model)


@pytest.mark.parametrize("kind", KINDS)
def test_output_and_acceptance_by_kind(kind: str) -> None:
    model_type, changes = KINDS[kind]
    if model_type not in model_types():
        pytest.skip(f"this transformers has no {model_type}")
    if kind == "longrope" and transformers.__version__ < "5.20":
        pytest.skip("Phi-3 itself loses its prompt there: it drops its cache and feeds its last token only")
    check(model_type, **changes)


@pytest.mark.parametrize("kind", [kind for kind, (model_type, _) in KINDS.items() if model_type not in PLAIN])
def test_a_batch_by_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model_type, changes = KINDS[kind]
    if model_type not in model_types():
        pytest.skip(f"this transformers has no {model_type}")
    check_batch(monkeypatch, model_type, **changes)


def check_batch(monkeypatch: pytest.MonkeyPatch, model_type: str, **changes: Any) -> None:
    """Check that a padded batch, fed in parts, comes out as without a draft; decoded plainly is as good."""
    monkeypatch.setattr(ragged, "FREE", 12)
    target = build(model_type, **changes)
    inputs, draft = padded([LENGTH, LENGTH - 12, LENGTH - 3]), perturbed(target, 0.1)
    attach_policy(target, draft, RandomPolicy(seed=1))
    assert torch.equal(greedy(target, inputs), greedy(target, inputs, assistant_model=draft))


@pytest.mark.long
@pytest.mark.parametrize("model_type", model_types())
def test_output_and_acceptance_of_every_type(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if model_type in SKIPPED:
        pytest.skip(SKIPPED[model_type])
    check(model_type)
    if model_type not in PLAIN:  # which are refused
        check_batch(monkeypatch, model_type)


def test_vision_target_with_its_text_part_as_draft() -> None:
    target = build_vision("llava")
    draft = text_draft(target)
    counted = check_plain(target, draft, FixedPolicy(4), prompt(LENGTH))
    assert counted.acceptance_rate >= 0.99

    ids = prompt(LENGTH)["input_ids"].clamp(max=target.config.image_token_id - 1)
    ids[:, 3:7] = target.config.image_token_id
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    counted = check_plain(target, draft, FixedPolicy(4), inputs)
    assert counted.drafted > 20


def test_vision_target_with_positions_in_three_dimensions() -> None:
    target = build_vision("qwen2_vl")
    counted = check_plain(target, copy.deepcopy(target), FixedPolicy(4), prompt(LENGTH))
    assert counted.acceptance_rate >= 0.99


@pytest.mark.long
@pytest.mark.parametrize("model_type", VISION)
def test_vision_targets(model_type: str) -> None:
    target = build_vision(model_type)
    counted = check_plain(target, perturbed(target, 0.1), RandomPolicy(seed=1), prompt(LENGTH))
    assert rolled_back(counted) or model_type in KEEPS_MORE

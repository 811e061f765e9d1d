"""The trainer of EAGLE-3 heads, on a tiny target: it learns, goes on where it was, and stores what SGLang reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from speckv.benchmarks.eagle3 import training
from speckv.benchmarks.eagle3.head import STEPS, Head
from speckv.benchmarks.eagle3.judged import judged
from speckv.benchmarks.eagle3.training import Said, accepted, said, train, vocabulary
from speckv.integrations.runtime import Controller

Sequences = list[Said]


@pytest.fixture(scope="module")
def target() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=96,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def told(target: Any, tmp_path_factory: pytest.TempPathFactory) -> Sequences:
    prompts = [[3 + number, 40] for number in range(20)]
    return said(target, prompts, 40, tmp_path_factory.mktemp("told"), 3, lambda *_: None, temperature=0.1)


def test_what_was_said_is_kept_and_its_prompts_are_in_it(target: Any, tmp_path: Path) -> None:
    prompts = [[5], [6, 7, 8]]
    first = said(target, prompts, 8, tmp_path, 1, lambda *_: None)
    assert len(first) == training.SHARD and first[0].ids[:1] == [5] and first[1].ids[:3] == [6, 7, 8]
    assert [one.start for one in first[:2]] == [1, 3]
    assert all(2 not in one.ids[one.start : -1] for one in first), "nothing after its end"
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert said(target, prompts, 8, tmp_path, 2, lambda *_: None)[: len(first)] == first
    assert all(file.read_bytes() == content for file, content in files.items())


def test_it_learns(target: Any, told: Sequences, tmp_path: Path) -> None:
    head = Head.of(target, vocabulary(told, 80))
    before = accepted(target, head, told)
    losses = [train(target, head, told, tmp_path / f"{n}.safetensors", n, 8, lambda *_: None) for n in (5, 60)]
    after = accepted(target, head, told)
    assert losses[1] < losses[0]
    assert after[0] > before[0] + 0.05 and after == sorted(after, reverse=True) and len(after) == STEPS


def test_the_controller_is_judged_by_what_was_accepted(target: Any, told: Sequences) -> None:
    head = Head.of(target, vocabulary(told, 80)).eval()
    found = judged(target, head, told, Controller.load())
    assert found["rounds"] > 100
    assert found["reached"] == sorted(found["reached"], reverse=True)
    for when in ("before", "after"):
        assert found["predicted"][when]["mean"] == pytest.approx(found["reached"])
        losses = found["log_loss"][when]
        assert losses["mean"] < losses["corrected"] < losses["shipped"], "an untrained head is next to never right"
    assert all(ratio < 0.5 for ratio in found["correction"]["corrected"].values())


def test_stopped_training_goes_on_to_the_same_weights(target: Any, told: Sequences, tmp_path: Path) -> None:
    def stops(what: str, done: int, total: int) -> None:
        if done == 33:
            raise KeyboardInterrupt

    def head() -> Head:
        torch.manual_seed(1)
        return Head.of(target, vocabulary(told, 80))

    whole, half, again = head(), head(), head()
    train(target, whole, told, tmp_path / "whole.safetensors", 40, 4, lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        train(target, half, told, tmp_path / "half.safetensors", 40, 4, stops)
    train(target, again, told, tmp_path / "half.safetensors", 40, 4, lambda *_: None)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, again.state_dict()[name], atol=1e-6), name


def test_later_steps_see_nothing_of_what_follows(target: Any, told: Sequences) -> None:
    """Logits of a row depend on no token after those that the row is given: the mask of the steps."""
    head = Head.of(target, vocabulary(told, 80)).eval()
    embeds, features = torch.randn(1, 9, 32), torch.randn(1, 9, 96)
    with torch.no_grad():
        logits = head.drafted(embeds, features)
        changed = embeds.clone()
        changed[:, 6:] += 1.0
        later = features.clone()
        later[:, 4:] += 1.0
        others = head.drafted(changed, later)
    for step in range(STEPS):
        seen = min(4, 6 - step)  # rows whose features and tokens are as they were
        assert torch.allclose(logits[step][:, :seen], others[step][:, :seen], atol=1e-5)
        assert not torch.allclose(logits[step][:, seen], others[step][:, seen], atol=1e-3)


def test_it_is_stored_as_sglang_reads_it(target: Any, told: Sequences, tmp_path: Path) -> None:
    known = vocabulary(told, 80)
    Head.of(target, known).save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert torch.equal(weights["d2t"] + torch.arange(80), known) and bool((known.diff() > 0).all())
    assert weights["midlayer.self_attn.q_proj.weight"].shape == (32, 64) and weights["fc.weight"].shape == (32, 96)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLMEagle3"] and config["draft_vocab_size"] == 80
    assert config["num_hidden_layers"] == 1 and not config["tie_word_embeddings"]
    assert config["eagle_config"] == {"eagle_aux_hidden_state_layer_ids": [0, 1, 2]}

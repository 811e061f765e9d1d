"""The hook takes over one pair's assisted generation, and nothing else, and can be taken off again."""

from __future__ import annotations

import copy
import io
import itertools
import logging
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers_helpers import RandomPolicy, greedy, prompt, tiny, tiny_pair

from speckv.controller.curve import Costs
from speckv.controller.errors import SpecKVError
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policy import Round
from speckv.integrations.transformers import attach, attach_policy, compatibility, detach, loop, stats
from speckv.integrations.transformers.hook import HOOK, OVERRIDE, attachment
from speckv.integrations.transformers.target import TargetModel

INPUTS = prompt()


@pytest.fixture
def pair() -> tuple[Any, Any]:
    return tiny_pair(noise=0.05)


def test_detach_leaves_no_trace(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    before = set(target.__dict__)
    attach(target, draft)
    assert set(target.__dict__) - before == {HOOK, OVERRIDE}
    detach(target)
    assert set(target.__dict__) == before
    detach(target)  # a second time does nothing
    with pytest.raises(SpecKVError, match="not attached; call attach"):
        stats(target)


def test_configurations_are_untouched(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    configs = [(model.config.to_dict(), model.generation_config.to_dict()) for model in pair]
    attach(target, draft)
    greedy(target, INPUTS, assistant_model=draft)
    assert configs == [(model.config.to_dict(), model.generation_config.to_dict()) for model in pair]


def test_the_draft_is_not_registered(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    keys, modules = set(target.state_dict()), len(list(target.modules()))
    attach(target, draft)
    assert set(target.state_dict()) == keys
    assert len(list(target.modules())) == modules


def test_what_is_not_ours_is_delegated(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    rounds: list[Round] = []
    attach_policy(target, draft, FixedPolicy(4), rounds.append)
    reference = greedy(target, INPUTS)
    assert torch.equal(reference, greedy(target, INPUTS, prompt_lookup_num_tokens=3))
    other = tiny(seed=5)
    assert torch.equal(reference, greedy(target, INPUTS, assistant_model=other))
    assert rounds == []
    assert torch.equal(reference, greedy(target, INPUTS, assistant_model=draft))
    assert len(rounds) > 5


def test_another_targets_calls_are_untouched(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    rounds: list[Round] = []
    attach_policy(target, draft, FixedPolicy(4), rounds.append)
    bystander = copy.copy(tiny(seed=3))
    greedy(bystander, INPUTS, assistant_model=draft)
    assert rounds == []


@pytest.mark.parametrize(
    "more",
    [{"assistant_tokenizer": "one", "tokenizer": "two"}, {"custom_generate": "somebody/repository"}],
)
def test_other_ways_of_generating_are_delegated(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    target, draft = pair
    seen: list[Any] = []

    def stock(self: Any, inputs: Any = None, assistant_model: Any = None, **arguments: Any) -> Any:
        seen.append((assistant_model, arguments))
        return "delegated"

    monkeypatch.setattr(type(target), "generate", stock)
    monkeypatch.setattr(compatibility, "mismatches", list)
    attach_policy(target, draft, FixedPolicy(4))
    assert target.generate(INPUTS["input_ids"], draft, **more) == "delegated"
    assert seen == [(draft, more)]


def test_streamer_gets_every_token_once(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    attach_policy(target, draft, RandomPolicy(0))
    received: list[int] = []

    class Streamer:
        def put(self, value: Any) -> None:
            received.extend(value.reshape(-1).tolist())

        def end(self) -> None:
            received.append(-1)

    output = greedy(target, INPUTS, assistant_model=draft, streamer=Streamer())
    assert received == [*output[0].tolist(), -1]


def test_what_a_caller_gets_is_not_of_inference_mode(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds run in that mode, whose tensors can be neither trained on nor written to, where nobody sees any."""
    target, draft = pair
    attach_policy(target, draft, RandomPolicy(0))
    modes: list[bool] = []
    stock = TargetModel.verify

    def verify(self: TargetModel, *args: Any) -> torch.Tensor:
        modes.append(torch.is_inference_mode_enabled())
        return stock(self, *args)

    monkeypatch.setattr(TargetModel, "verify", verify)
    seen: list[torch.Tensor] = []
    own, told = DynamicCache(), {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}

    plain = greedy(target, INPUTS, assistant_model=draft)
    assert all(modes) and not plain.is_inference()

    modes.clear()
    told_of = greedy(target, INPUTS, assistant_model=draft, **told)
    greedy(target, INPUTS, assistant_model=draft, past_key_values=own)
    with target.model.norm.register_forward_hook(lambda _module, _inputs, states: seen.append(states)):
        greedy(target, INPUTS, assistant_model=draft)
    assert modes and not any(modes)
    kept = [layer.keys for cache in (own, told_of.past_key_values) for layer in cache.layers]
    assert not any(one.is_inference() for one in (*seen, *kept, *told_of.scores, *told_of.logits))

    modes.clear()
    with torch.inference_mode():
        assert torch.equal(greedy(target, INPUTS, assistant_model=draft, past_key_values=DynamicCache()), plain)
    assert all(modes)


def test_a_slow_reader_is_not_taken_for_a_slow_target(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = pair
    rounds: list[Round] = []
    attach_policy(target, draft, FixedPolicy(3), rounds.append)
    clock, readers = itertools.count(), []
    monkeypatch.setattr(loop, "perf_counter", lambda: next(clock) * 1e-3 + len(readers))

    class Waiting:  # a second for each token; everything else takes a millisecond between two looks at the clock
        def put(self, value: Any) -> None:
            readers.append(value)

        def end(self) -> None: ...

    greedy(target, INPUTS, 12, assistant_model=draft, streamer=Waiting())
    assert len(readers) == 13  # the prompt is one
    assert 1 <= min(one.verify_ms for one in rounds) <= max(one.verify_ms for one in rounds) < 20


def test_an_interrupted_call_does_not_spoil_the_next(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    attach(target, draft)
    reference = greedy(target, INPUTS)

    class Interrupting:
        calls = 0

        def put(self, value: Any) -> None:
            self.calls += 1
            if self.calls == 4:
                raise KeyboardInterrupt

        def end(self) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        greedy(target, INPUTS, assistant_model=draft, streamer=Interrupting())
    assert torch.equal(reference, greedy(target, INPUTS, assistant_model=draft))


def test_two_pairs_in_two_threads() -> None:
    pairs = [tiny_pair("llama", 0.05), tiny_pair("qwen2", 0.05)]
    references = [greedy(target, INPUTS, 60) for target, _ in pairs]
    for target, draft in pairs:
        attach(target, draft)
    wrong: list[int] = []

    def work(number: int) -> None:
        target, draft = pairs[number]
        for _ in range(4):
            if not torch.equal(references[number], greedy(target, INPUTS, 60, assistant_model=draft)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(stats(target).emitted == 240 for target, _ in pairs)


def test_deepcopy_learns_for_itself(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    attach(target, draft)
    clone = copy.deepcopy(target)
    assert clone.generate.__self__ is clone
    assert attachment(clone).draft is draft
    assert torch.equal(greedy(target, INPUTS), greedy(clone, INPUTS, assistant_model=draft))
    assert stats(clone).rounds > 0 == stats(target).rounds
    assert attachment(clone).policy is not attachment(target).policy


def test_save_pretrained_and_load(pair: tuple[Any, Any], tmp_path: Path) -> None:
    target, draft = pair
    attach(target, draft)
    target.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert "_speckv" not in loaded.__dict__
    assert torch.equal(greedy(target, INPUTS), greedy(loaded, INPUTS))


def test_a_pickle_is_not_attached_and_says_so(pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    target, draft = pair
    bare = len(pickle.dumps(target))
    attach(target, draft)
    with caplog.at_level(logging.WARNING, "speckv"):
        content = pickle.dumps(target)
    assert "call attach() again" in caplog.text
    assert len(content) < 1.1 * bare  # the draft's weights are not in it
    loaded = pickle.loads(content)
    with pytest.raises(SpecKVError, match="not attached"):
        stats(loaded)
    assert torch.equal(greedy(target, INPUTS), greedy(loaded, INPUTS, assistant_model=draft))
    buffer = io.BytesIO()
    torch.save(target, buffer)
    assert buffer.tell() < 1.2 * bare


def test_pipeline(pair: tuple[Any, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    target, draft = pair
    attach_policy(target, draft, FixedPolicy(3))
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(256)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0")
    generate = transformers.pipeline("text-generation", model=target, tokenizer=tokenizer, assistant_model=draft)
    generate.assistant_model = draft
    text = "w5 w9 w77"
    settings = {"max_new_tokens": 20, "do_sample": False, "return_full_text": False}
    assisted = generate(text, **settings)[0]["generated_text"]
    counted = stats(target).rounds
    assert counted > 0
    plain = transformers.pipeline("text-generation", model=target, tokenizer=tokenizer)
    assert plain(text, **settings)[0]["generated_text"] == assisted
    assert stats(target).rounds == counted


def test_the_lossy_ensemble_is_refused(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    if not hasattr(target.generation_config, "assistant_ensemble_weight"):
        pytest.skip("this transformers has no assistant_ensemble_weight")
    attach(target, draft)
    with pytest.raises(SpecKVError, match=r"assistant_ensemble_weight .* lossless"):
        greedy(target, INPUTS, assistant_model=draft, assistant_ensemble_weight=0.5)


def test_the_same_model_twice_is_refused(pair: tuple[Any, Any]) -> None:
    with pytest.raises(SpecKVError, match="load the draft as a second model"):
        attach(pair[0], pair[0])


def test_unequal_vocabularies_need_a_word() -> None:
    target, draft = tiny(vocab_size=256), tiny(vocab_size=300)
    with pytest.raises(SpecKVError, match=r"target 256, draft 300.*same_tokenizer=True"):
        attach(target, draft)
    with pytest.raises(SpecKVError, match="different tokenizers; take a draft of the same family"):
        attach(target, draft, same_tokenizer=False)


def test_tokenizer_files_are_compared(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    folders = []
    for number, vocabulary in enumerate(({"a": 0, "b": 1}, {"a": 0, "b": 1}, {"b": 0, "a": 1})):
        folder = tmp_path / str(number)
        folder.mkdir()
        content = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
        content.save(str(folder / "tokenizer.json"), pretty=number == 1)
        folders.append(str(folder))
    target, same, other = tiny(vocab_size=256), tiny(vocab_size=300), tiny(vocab_size=256)
    for model, folder in zip((target, same, other), folders, strict=True):
        model.config.name_or_path = folder
    attach(target, same)  # sizes differ, files agree
    with pytest.raises(SpecKVError, match="different tokenizers"):
        attach(target, other)  # sizes agree, files differ


def test_a_changed_transformers_is_refused(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = pair

    def renamed(self: Any, ids: Any) -> None: ...

    monkeypatch.setattr(compatibility.GenerationMixin, "prepare_inputs_for_generation", renamed)
    with pytest.raises(SpecKVError, match=r"no longer takes .*input_ids.*nothing was attached; versions that work"):
        attach(target, draft)
    monkeypatch.delattr(compatibility.GenerationMixin, "prepare_inputs_for_generation")
    with pytest.raises(SpecKVError, match="prepare_inputs_for_generation is gone"):
        attach(target, draft)
    monkeypatch.undo()
    monkeypatch.setattr(compatibility, "SETTINGS", "do_sample most_tokens")
    with pytest.raises(SpecKVError, match=r"GenerationConfig\.most_tokens is gone"):
        attach(target, draft)
    assert "_speckv" not in target.__dict__


def test_arguments_of_attach_are_checked(pair: tuple[Any, Any], tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"controller": tmp_path / "none.onnx"}, "none.onnx: no such file"),
        ({"objective": "speed"}, "objective speed: must be one of"),
        ({"mode": "batch"}, "mode batch: must be one of"),
        ({"gamma": -1}, "gamma -1: must be 0 or more"),
        ({"max_gamma": 99}, "max_gamma 99"),
        ({"compression": "int3"}, "int3: no such compression"),
        ({"provider": "tpu"}, "tpu: no such provider"),
        ({"gamma": 2, "policy": FixedPolicy(2)}, "contradict each other"),
    ]
    for arguments, message in wrong:
        with pytest.raises(SpecKVError, match=message) as caught:
            attach(*pair, **arguments)
        assert "\n" not in str(caught.value)
        assert "_speckv" not in pair[0].__dict__


def test_nan_signals_fall_back_and_stay_lossless(pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    target, draft = pair
    reference = greedy(target, INPUTS)
    with torch.no_grad():
        draft.lm_head.weight[3:].fill_(float("nan"))
    for mode in ("token", "step"):
        attach(target, draft, mode=mode, costs=Costs.linear(1, 100))  # where drafting is worth a try
        with caplog.at_level(logging.WARNING, "speckv"):
            assert torch.equal(reference, greedy(target, INPUTS, assistant_model=draft))
        policy: Any = attachment(target).policy
        assert policy.fallbacks > 0
        assert set(stats(target).gammas) <= {0, 1, 2, 3, 4}
    assert sum("not finite" in record.message for record in caplog.records) == 2  # once per attach


def test_quantised_targets(pair: tuple[Any, Any], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from speckv.integrations.models.loading import load_model

    target, draft = tiny_pair(noise=0.02, hidden_size=64, intermediate_size=128)
    target.save_pretrained(tmp_path)
    for compression, level in (("int8", 1), ("nf4", 2)):
        quantised = load_model(str(tmp_path), compression)
        attach(quantised, draft)
        policy: Any = attachment(quantised).policy
        assert policy.compression == level
        output = greedy(quantised, INPUTS, 30, assistant_model=draft)
        assert output.shape[1] == 42
        # Shapes of a forward change low-precision results, so only a common beginning is promised here.
        assert torch.equal(output[:, :14], greedy(quantised, INPUTS, 30)[:, :14])

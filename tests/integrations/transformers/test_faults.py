"""What public bug reports of assisted generation show: each is right, decoded plainly, or refused in one line."""

from __future__ import annotations

import copy
import logging
import threading
from typing import Any

import pytest
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LogitsProcessor,
    LogitsProcessorList,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
    QuantizedCache,
    RobertaConfig,
    RobertaForCausalLM,
    StaticCache,
    StoppingCriteria,
    StoppingCriteriaList,
    WatermarkingConfig,
)
from transformers_helpers import TINY, RandomPolicy, greedy, padded, prompt, tiny, tiny_pair

from speckv.controller.errors import SpecKVError
from speckv.controller.policies.fixed import FixedPolicy
from speckv.integrations.models.loading import perturbed
from speckv.integrations.transformers import attach, attach_policy, stats
from speckv.integrations.transformers.cache import NAMES, cache_name, parameters
from speckv.integrations.transformers.call import Call
from speckv.integrations.transformers.target import DecodePlainly

INPUTS = prompt()


@pytest.fixture
def pair() -> tuple[Any, Any]:
    return tiny_pair(noise=0.05)


def alike(target: Any, draft: Any, inputs: Any = INPUTS, tokens: int = 40, seeds: int = 3, **settings: Any) -> None:
    """Plain decoding and ours say the same, under policies that draft at random."""
    reference = greedy(target, inputs, tokens, **settings)
    for seed in range(seeds):
        attach_policy(target, draft, RandomPolicy(seed))
        assert torch.equal(reference, greedy(target, inputs, tokens, assistant_model=draft, **settings))


def acceptance_of_a_copy(target: Any, sample: bool = False, tokens: int = 60) -> float:
    """How much is accepted of a draft that is the target's copy: all, but for rounding."""
    draft = copy.deepcopy(target)
    attach_policy(target, draft, FixedPolicy(4))
    torch.manual_seed(0)
    greedy(target, INPUTS, tokens, assistant_model=draft, do_sample=sample, top_k=0)
    return stats(target).acceptance_rate


def cache_keyword(model: Any) -> str:
    return cache_name(parameters(type(model).prepare_inputs_for_generation)) or NAMES[-1]


# Drafts


def roberta(**config: Any) -> Any:
    sizes = {name: value for name, value in TINY.items() if name != "num_key_value_heads"}
    return RobertaForCausalLM(RobertaConfig(**{**sizes, "pad_token_id": 1, "is_decoder": True, **config})).eval()


def test_a_roberta_like_draft_counts_positions_as_generate_does() -> None:
    torch.manual_seed(0)
    target = roberta()
    assert acceptance_of_a_copy(target) >= 0.99
    alike(target, perturbed(target, 0.05))


@pytest.mark.parametrize("zero_row", [0, 128])
def test_scaled_logits_are_not_taken_for_plain_ones_where_a_row_of_the_embedding_is_zero(zero_row: int) -> None:
    torch.manual_seed(0)
    target = GraniteForCausalLM(GraniteConfig(**{**TINY, "logits_scaling": 8.0})).eval()
    with torch.no_grad():
        target.get_output_embeddings().weight.mul_(30)  # so that the scaling shows
        target.get_input_embeddings().weight[zero_row].zero_()
    assert acceptance_of_a_copy(target, sample=True) >= 0.97


def short_gpt2() -> Any:
    sizes = {"vocab_size": 256, "n_positions": 30, "n_embd": 32, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=None, bos_token_id=None))


def short_roberta() -> Any:
    return roberta(max_position_embeddings=30)


@pytest.mark.parametrize("make", [short_gpt2, short_roberta])
def test_a_draft_with_fewer_positions_than_the_text_stops_drafting(make: Any) -> None:
    target = tiny()
    torch.manual_seed(0)
    draft = make().eval()
    reference = greedy(target, INPUTS, 60)
    drafted: list[tuple[int, int]] = []
    attach_policy(target, draft, FixedPolicy(6), lambda one: drafted.append((one.position, one.gamma)))
    assert torch.equal(reference, greedy(target, INPUTS, 60, assistant_model=draft))
    assert max(position + count for position, count in drafted if count) == 31  # its last position is fed
    assert all(count == 0 for position, count in drafted if position > 30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MambaForCausalLM(MambaConfig(vocab_size=256, hidden_size=32, num_hidden_layers=2)),
            "MambaForCausalLM keeps a state that cannot be rolled back; take a draft without recurrent layers",
        ),
        (lambda: LlamaForCausalLM(LlamaConfig(**TINY)).model, "LlamaModel has no language-model head; load it as a"),
        (lambda: LlamaForSequenceClassification(LlamaConfig(**TINY)), "SequenceClassification has no language-model"),
        (lambda: LlamaForCausalLM(LlamaConfig(**TINY)).to("meta"), "some of its weights are not loaded"),
        (lambda: torch.nn.DataParallel(tiny()), r"DataParallel is not a transformers model; .* \.module"),
        (lambda: torch.nn.Linear(2, 2), "Linear is not a transformers model"),
    ],
)
def test_what_cannot_draft_is_refused_at_attach(make: Any, message: str) -> None:
    target = tiny()
    for attached in (lambda draft: attach(target, draft), lambda draft: attach_policy(target, draft, FixedPolicy(4))):
        with pytest.raises(SpecKVError, match=message) as caught:
            attached(make())
        assert "\n" not in str(caught.value)
        assert set(target.__dict__).isdisjoint({"_speckv", "generate"})


def test_a_target_that_cannot_be_rolled_back_is_decoded_plainly(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    target = MambaForCausalLM(
        MambaConfig(vocab_size=256, hidden_size=32, num_hidden_layers=2, eos_token_id=None)
    ).eval()
    with caplog.at_level(logging.WARNING, "speckv"):
        alike(target, tiny(), seeds=1)
    assert "decoded plainly: MambaForCausalLM keeps a state that cannot be rolled back" in caplog.text
    assert stats(target).drafted == 0


# Wrapped models


class Wrapped(torch.nn.Module):
    """What PEFT's models are for attach: another module, whose ``generate`` is the inner model's."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model

    def get_base_model(self) -> Any:
        return self.inner

    def generate(self, **arguments: Any) -> Any:
        return self.inner.generate(**arguments)


@pytest.mark.parametrize("wrap", [torch.compile, Wrapped])
def test_compiled_and_peft_models_are_unwrapped(pair: tuple[Any, Any], wrap: Any) -> None:
    target, draft = pair
    reference = greedy(target, INPUTS)
    outer = wrap(target)
    attach_policy(outer, wrap(draft), FixedPolicy(4))
    for assistant in (draft, wrap(draft)):
        assert torch.equal(reference, greedy(outer, INPUTS, assistant_model=assistant))
    assert stats(outer).rounds == stats(target).rounds > 0


def test_a_lora_adapter_is_part_of_the_target(pair: tuple[Any, Any]) -> None:
    peft = pytest.importorskip("peft")
    target, draft = pair
    outer = peft.get_peft_model(target, peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    reference = greedy(outer, INPUTS)
    attach_policy(outer, draft, FixedPolicy(4))
    assert torch.equal(reference, greedy(outer, INPUTS, assistant_model=draft))
    assert stats(outer).accepted > 0


def test_a_generate_of_its_own_is_not_wrapped(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    target.generate = lambda *_: None
    with pytest.raises(SpecKVError, match=r"already has a generate\(\) of its own"):
        attach(target, draft)


# Caches


def first_turn(target: Any) -> Any:
    return greedy(target, INPUTS, 10, return_dict_in_generate=True)


def cache_of(output: Any) -> Any:
    return next(output[name] for name in NAMES if name in output)


def test_a_cache_with_only_the_new_ids(pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    target, draft = pair
    first = first_turn(target)
    new = torch.cat((first.sequences[:, -1:], prompt(5, 1)["input_ids"]), dim=1)
    whole = torch.cat((first.sequences, new[:, 1:]), dim=1)
    reference = greedy(target, {"input_ids": whole, "attention_mask": torch.ones_like(whole)}, 30)
    attach_policy(target, draft, FixedPolicy(4))
    given = {"input_ids": new, "attention_mask": torch.ones_like(whole), cache_keyword(target): cache_of(first)}
    with caplog.at_level(logging.WARNING, "speckv"):
        found = greedy(target, given, 30, assistant_model=draft)
    assert torch.equal(reference[:, whole.shape[1] :], found[:, new.shape[1] :])
    assert "decoded plainly: a cache was handed in without the ids of all that it holds" in caplog.text


def test_an_interrupted_call_with_a_cache_does_not_spoil_the_next(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    first = first_turn(target)
    more = torch.cat((first.sequences, prompt(5, 1)["input_ids"]), dim=1)
    longer = {"input_ids": more, "attention_mask": torch.ones_like(more)}
    reference = greedy(target, longer, 30)
    attach_policy(target, draft, FixedPolicy(4))

    class Interrupting(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            given = {**longer, cache_keyword(target): copy.deepcopy(cache_of(first))}
            greedy(target, given, 30, assistant_model=draft, stopping_criteria=StoppingCriteriaList([Interrupting()]))
        assert torch.equal(reference, greedy(target, longer, 30, assistant_model=draft))
    given = {**longer, cache_keyword(target): cache_of(first)}
    assert torch.equal(reference, greedy(target, given, 30, assistant_model=draft))


def test_one_pair_in_many_threads_with_caches_handed_in() -> None:
    target, draft = tiny_pair(noise=0.05)
    first = first_turn(target)
    texts = [torch.cat((first.sequences, prompt(3 + n, n)["input_ids"]), dim=1) for n in range(4)]
    references = [greedy(target, {"input_ids": t, "attention_mask": torch.ones_like(t)}, 40) for t in texts]
    attach(target, draft)
    wrong: list[int] = []
    begin = threading.Barrier(len(texts))

    def work(number: int) -> None:
        begin.wait()
        for _ in range(4):
            ids = texts[number]
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            given[cache_keyword(target)] = copy.deepcopy(cache_of(first))
            if not torch.equal(references[number], greedy(target, given, 40, assistant_model=draft)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert stats(target).emitted == 4 * 4 * 40


def test_a_handed_in_cache_of_states_alone_is_decoded_plainly(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    target = MambaForCausalLM(
        MambaConfig(vocab_size=256, hidden_size=32, num_hidden_layers=2, eos_token_id=None)
    ).eval()
    if cache_name(parameters(target.forward)) is None:
        pytest.skip("in this version of transformers a Mamba has no cache of the common name")
    first = first_turn(target)
    more = torch.cat((first.sequences, prompt(5, 1)["input_ids"]), dim=1)
    draft = tiny()
    attach_policy(target, draft, FixedPolicy(4))
    outputs = []
    with caplog.at_level(logging.WARNING, "speckv"):
        for assisted in ({}, {"assistant_model": draft}):
            given = {"input_ids": more, cache_keyword(target): copy.deepcopy(cache_of(first))}
            outputs.append(greedy(target, given, 20, **assisted))
    assert torch.equal(*outputs)
    assert "decoded plainly: MambaForCausalLM keeps a state that cannot be rolled back" in caplog.text


@pytest.mark.parametrize("kind", ["static", StaticCache, QuantizedCache, "unused"])
def test_caches_that_are_not_rolled_back_exactly(
    pair: tuple[Any, Any], kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    target, draft = pair
    reference = greedy(target, INPUTS)

    def settings() -> dict[str, Any]:
        if kind == "static":
            return {"cache_implementation": "static"}
        if kind == "unused":
            return {"use_cache": False}
        if kind is StaticCache:
            return {cache_keyword(target): StaticCache(config=target.config, max_cache_len=60)}
        pytest.importorskip("optimum.quanto", reason="QuantizedCache needs optimum-quanto")
        return {cache_keyword(target): QuantizedCache(backend="quanto", config=target.config)}

    attach_policy(target, draft, FixedPolicy(4))
    with caplog.at_level(logging.WARNING, "speckv"):
        for _ in range(2):
            assert torch.equal(reference, greedy(target, INPUTS, assistant_model=draft, **settings()))
    assert caplog.text.count("decoded plainly") == 1  # said once
    assert stats(target).rounds == 0


def test_a_cache_is_given_back_as_plain_decoding_leaves_it() -> None:
    target, draft = tiny_pair("mistral", 0.05)
    caches = []
    for assisted in ({}, {"assistant_model": draft}):
        attach_policy(target, draft, RandomPolicy(0))
        cache = DynamicCache(config=target.config)
        greedy(target, {**INPUTS, cache_keyword(target): cache}, 40, **assisted)
        caches.append(cache)
    plain, ours = caches
    assert plain.get_seq_length() == ours.get_seq_length() == 51
    for one, other in zip(plain.layers, ours.layers, strict=True):
        torch.testing.assert_close(one.keys, other.keys, rtol=1e-4, atol=1e-4)
        assert not getattr(other, "record_past", False)


# What ends a text


def words() -> Any:
    """A tokenizer of 256 bytes, one a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="!")


@pytest.mark.parametrize("where", ["argument", "generation_config", "model"])
def test_stop_strings_end_the_text_where_plain_decoding_does(pair: tuple[Any, Any], where: str) -> None:
    target, draft = pair
    said = greedy(target, INPUTS, 40)[0, 12:].tolist()
    for place in (5, 7, 9, 13, 14, 17, 21, 30):
        strings = [words().decode(said[place - 1 : place + 1])]
        if "\ufffd" in strings[0]:
            continue  # half a letter
        settings: dict[str, Any] = {"tokenizer": words()}
        if where == "argument":
            settings["stop_strings"] = strings
        elif where == "generation_config":
            settings["generation_config"] = GenerationConfig(stop_strings=strings, max_new_tokens=40, pad_token_id=0)
        else:
            target.generation_config.stop_strings = strings
        alike(target, draft, seeds=2, **settings)
        if where == "generation_config":
            assert settings["generation_config"].stop_strings == strings  # the caller's own is untouched
        assert (stats(target).rounds == 0) == (where == "model")


class EndsOn(StoppingCriteria):  # type: ignore[misc]
    """Looks at the last token only, and counts how often it was asked."""

    def __init__(self, token: int) -> None:
        self.token, self.asked = token, 0

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self.asked += 1
        return input_ids[:, -1] == self.token


def test_a_criterion_that_looks_at_the_last_token_is_asked_for_every_token(pair: tuple[Any, Any]) -> None:
    target, draft = pair
    said = greedy(target, INPUTS, 40)[0, 12:].tolist()
    for place in (4, 11, 26):
        criteria = [EndsOn(said[place]), EndsOn(said[place])]
        attach_policy(target, draft, FixedPolicy(8))
        outputs = [
            greedy(target, INPUTS, 40, stopping_criteria=StoppingCriteriaList([one]), **more)
            for one, more in zip(criteria, ({}, {"assistant_model": draft}), strict=True)
        ]
        assert torch.equal(*outputs)
        assert criteria[0].asked == criteria[1].asked


# Logits processors that keep a state


class Counting(LogitsProcessor):  # type: ignore[misc]
    """A grammar in small: what it forbids depends on how often it was called."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.calls.append(input_ids.shape[1])
        scores = scores.clone()
        scores[:, len(self.calls) % 2 :: 2] = -float("inf")
        return scores


@pytest.mark.parametrize("sample", [False, True])
def test_a_processor_is_called_once_a_token_in_order(pair: tuple[Any, Any], sample: bool) -> None:
    target, draft = pair
    made = []
    for assisted in ({}, {"assistant_model": draft}):
        attach_policy(target, draft, RandomPolicy(0))
        grammar = Counting()
        torch.manual_seed(0)
        processors = LogitsProcessorList([grammar])
        output = greedy(target, INPUTS, 40, logits_processor=processors, do_sample=sample, **assisted)
        made.append((grammar.calls, output))
        assert all(token % 2 == place % 2 for place, token in enumerate(output[0, 12:].tolist()))
    assert made[0][0] == made[1][0] == list(range(12, 52))
    assert sample or torch.equal(made[0][1], made[1][1])


@pytest.mark.parametrize(
    "settings",
    [
        {"guidance_scale": 1.5},
        {"guidance_scale": 1.5, "negative_prompt_ids": prompt(4, 7)["input_ids"]},
        {"watermarking_config": WatermarkingConfig(bias=2.5, seeding_scheme="selfhash")},
        {"prefix_allowed_tokens_fn": lambda _, ids: [(int(ids[-1]) * 7 + n) % 256 for n in range(40)]},
    ],
    ids=["guidance", "negative prompt", "watermark", "prefix"],
)
def test_guidance_watermarks_and_prefixes(pair: tuple[Any, Any], settings: dict[str, Any]) -> None:
    alike(*pair, tokens=30, **settings)
    assert stats(pair[0]).drafted > 0


# Inputs


@pytest.mark.parametrize("with_ids", [False, True])
def test_embeddings_instead_of_ids(pair: tuple[Any, Any], with_ids: bool, caplog: pytest.LogCaptureFixture) -> None:
    target, draft = pair
    embedded = target.get_input_embeddings()(INPUTS["input_ids"]).detach()
    given = {"inputs_embeds": embedded, "attention_mask": INPUTS["attention_mask"]}
    if with_ids:
        given["input_ids"] = INPUTS["input_ids"]
    with caplog.at_level(logging.WARNING, "speckv"):
        alike(target, draft, given, seeds=1)
    assert "decoded plainly: inputs_embeds tell the draft nothing" in caplog.text


@pytest.mark.parametrize("wanted", ["output_hidden_states", "output_attentions"])
def test_hidden_states_and_attentions_are_plain_decodings(wanted: str) -> None:
    target, draft = tiny_pair(noise=0.05, attn_implementation="eager")
    settings = {"return_dict_in_generate": True, wanted: True}
    plain = greedy(target, INPUTS, 10, **settings)
    attach_policy(target, draft, FixedPolicy(4))
    ours = greedy(target, INPUTS, 10, assistant_model=draft, **settings)
    assert torch.equal(plain.sequences, ours.sequences)
    kind = wanted.removeprefix("output_")
    assert len(plain[kind]) == len(ours[kind]) == 10
    for one, other in zip(plain[kind], ours[kind], strict=True):
        torch.testing.assert_close(one[-1], other[-1])


def test_another_assistant_is_told_once(pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    target, draft = pair
    other = tiny(seed=5)
    attach(target, draft)
    with caplog.at_level(logging.WARNING, "speckv"):
        for _ in range(3):
            greedy(target, INPUTS, 5, assistant_model=other)
    assert caplog.text.count("assistant_model is not the attached draft") == 1


def test_synchronised_processes_decode_plainly(pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    target, draft = pair
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, **__: None)
    alike(target, draft, seeds=1, synced_gpus=True)
    assert stats(target).rounds == 0


def test_a_prompt_in_chunks_is_decoded_plainly(pair: tuple[Any, Any]) -> None:
    alike(*pair, seeds=1, prefill_chunk_size=5)
    assert stats(pair[0]).rounds == 0


def test_token_healing_is_decoded_plainly(pair: tuple[Any, Any]) -> None:
    call = Call({"token_healing": True, "assistant_model": pair[1]}, pair[0].generation_config)
    with pytest.raises(DecodePlainly, match="token_healing needs the tokenizer"):
        call.with_loop(lambda *_: None)
    assert call.without_draft() == {"token_healing": True}


# Positions


ROPE = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 8,
        "long_factor": [3.0] * 8,
        "original_max_position_embeddings": 32,
        "factor": 4.0,
    },
}


@pytest.mark.parametrize("kind", ROPE)
def test_rope_that_switches_by_length(kind: str) -> None:
    most = 32 if kind == "dynamic" else 128
    target = tiny(rope_parameters=ROPE[kind], max_position_embeddings=most)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(2)  # so that positions matter
    draft = perturbed(target, 0.02)
    reference = greedy(target, INPUTS, 60)
    for policy in (FixedPolicy(7), FixedPolicy(4), RandomPolicy(0, most=12)):
        rounds: list[Any] = []
        attach_policy(target, draft, policy, rounds.append)
        assert torch.equal(reference, greedy(target, INPUTS, 60, assistant_model=draft))
        beyond = [one for one in rounds if one.position > 34]
        assert all(one.position + one.gamma <= 32 for one in rounds if one.position <= 32)
        assert any(one.levels for one in beyond) == (kind == "longrope")
    if kind == "longrope":
        assert acceptance_of_a_copy(target) >= 0.99


@pytest.mark.parametrize("kind", ROPE)
def test_rope_that_switches_in_a_batch(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """By the longest of a forward all others are turned, too, and rounds bring together what plain steps do not."""
    target = tiny(rope_parameters=ROPE[kind], max_position_embeddings=32 if kind == "dynamic" else 128)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.mul_(2)
    draft = perturbed(target, 0.02)
    inputs = padded([15, 4, 9])
    for tokens, plainly in ((17, False), (18, True), (40, True)):
        caplog.clear()
        attach_policy(target, draft, RandomPolicy(0))
        with caplog.at_level(logging.WARNING, "speckv"):
            found = greedy(target, inputs, tokens, assistant_model=draft)
        assert torch.equal(greedy(target, inputs, tokens), found)
        assert (f"switch before {15 + tokens} tokens" in caplog.text) == plainly
        assert (stats(target).drafted > 0) != plainly

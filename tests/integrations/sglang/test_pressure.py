"""Servers whose KV cache is too small for what they take on, prompts that wait for a decode step, and adapters.

SGLang takes requests back in the middle of their text when memory runs out, and reads prompt and text again later.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("sglang")

from sglang.srt.arg_groups.lora_hook import check_lora_speculative_compatibility
from sglang_models import save_pair
from sglang_steered import LIMITS, Steered

from speckv.benchmarks.bench.sglang_server import Server
from speckv.integrations.sglang.algorithm import SpecKVAlgorithm, make_worker
from speckv.integrations.sglang.config import LaunchError

TIGHT = ("--max-total-tokens", "320", "--chunked-prefill-size", "32", "--enable-mixed-chunk")
"""Of four requests that run at once, about half have room."""

HOPEFUL = {"SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS": "1", "SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR": "0"}
"""What SGLang sets aside for a text that may end at any time is nothing, soon after every retraction again."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def plain(pair: tuple[Path, Path]) -> Iterator[Server]:
    server = Server(pair[0], *LIMITS, *TIGHT, environment=HOPEFUL)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module", params=["token", "step"])
def steered(
    request: pytest.FixtureRequest, plain: Server, pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Steered]:
    server = Steered(pair, tmp_path_factory.mktemp("steered"), request.param, TIGHT, HOPEFUL)
    try:
        plain.wait()
        server.wait()
        yield server
    finally:
        server.stop()


def burst(server: Server) -> list[dict[str, Any]]:
    """Answers to 24 requests that come at once, of which every fourth asks for logprobs."""
    generator = random.Random(1)
    prompts = [[generator.randrange(3, 259) for _ in range(generator.randrange(20, 60))] for _ in range(24)]
    # For a text that ignores its end SGLang sets all of it aside.
    sampling = [{"temperature": 0, "max_new_tokens": generator.randrange(60, 110)} for _ in prompts]
    logprobs = [number % 4 == 0 for number in range(len(prompts))]
    answers: list[dict[str, Any]] = server.post(
        "/generate", input_ids=prompts, sampling_params=sampling, return_logprob=logprobs
    )
    return answers


def texts(answers: list[dict[str, Any]]) -> list[Any]:
    return [(answer["text"], answer["output_ids"], answer["meta_info"]["finish_reason"]) for answer in answers]


def logprobs(answers: list[dict[str, Any]]) -> list[float]:
    return [value for one in answers for value, *_ in one["meta_info"].get("output_token_logprobs", ())]


@pytest.fixture(scope="module")
def wanted(plain: Server) -> list[dict[str, Any]]:
    answers = burst(plain.wait())
    assert any(answer["meta_info"]["num_retractions"] for answer in answers)
    return answers


@pytest.mark.parametrize("how", ["random", "real"])
def test_what_is_retracted_goes_on_as_without(wanted: list[dict[str, Any]], steered: Steered, how: str) -> None:
    steered.steer(how)
    answers = burst(steered)
    assert texts(answers) == texts(wanted)
    assert logprobs(answers) == pytest.approx(logprobs(wanted), abs=1e-4) and logprobs(wanted)
    told = [answer["meta_info"] for answer in answers if answer["meta_info"]["num_retractions"]]
    assert told, "no memory pressure"
    assert "KV cache pool is full. Retract requests." in steered.log.read_text()
    for info in told:
        rounds = [gamma for gamma in info["speckv_gamma"] if gamma is not None]
        assert len(rounds) == info["spec_verify_ct"]
        assert how != "random" or any(any(siblings or ()) for siblings in info["speckv_siblings"])


def test_what_was_retracted_leaves_no_slot_behind(steered: Steered) -> None:
    """SGLang itself stops with an error when an idle server's slots do not add up."""
    steered.flush()
    time.sleep(0.5)
    load = steered.get("/v1/loads")["loads"][0]
    assert load["num_running_reqs"] == load["num_used_tokens"] == 0


def test_chunks_are_not_mixed_with_rounds(plain: Server, steered: Steered) -> None:
    """In a mixed step a request would decode one token outside any round; SPECKV, like STANDALONE, turns it off."""
    assert [which.get("/server_info")["enable_mixed_chunk"] for which in (plain, steered)] == [True, False]
    assert "speckv: --enable-mixed-chunk is turned off" in steered.log.read_text()


@pytest.mark.parametrize("name", ["SPECKV", "STANDALONE"])
def test_sglang_refuses_adapters(name: str) -> None:
    """It knows by name what it lets adapters be combined with, and says so at launch: should that change, so may we."""
    with pytest.raises(ValueError, match=f"LoRA is only compatible with .*, not {name}") as refusal:
        check_lora_speculative_compatibility(SimpleNamespace(speculative_algorithm=name))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("option", [{"enable_lora": True}, {"lora_paths": ["one=somewhere"]}])
def test_adapters_are_refused_in_one_line(option: dict[str, Any]) -> None:
    algorithm = SpecKVAlgorithm("SPECKV", factory=make_worker, supports_overlap=True)
    with pytest.raises(LaunchError, match=r"SPECKV cannot be combined with --.*lora") as refusal:
        algorithm.handle_server_args(SimpleNamespace(speculative_adaptive_config=None, **option))
    assert "\n" not in str(refusal.value)

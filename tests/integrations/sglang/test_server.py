"""The real server on loopback: whatever γ is forced upon it, it answers as it does without speculation."""

from __future__ import annotations

import json
import re
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

pytest.importorskip("sglang")

from sglang_checks import alike, distribution, drawn_plainly, undisturbed_by_aborts
from sglang_kinds import KINDS, said
from sglang_models import CONTEXT, EOS, requests, save_pair
from sglang_steered import PLAIN, Steered, bench, speckv

from speckv.benchmarks.bench.sglang_server import Server

COUNT = 64


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


ASKED = "whether tis nobler"
"""To which the target says 30 tokens, the likeliest each time."""


@pytest.fixture(scope="module")
def servers(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Steered]]:
    """Without speculation, and with SPECKV; their processes start as a user's do, and are not forked as elsewhere."""
    apart = {"SPECKV_TEST_FORK": ""}
    plain = Server(pair[0], *PLAIN, environment=apart)
    steered = Steered(pair, tmp_path_factory.mktemp("steered"), environment=apart)
    try:
        yield plain.wait(), steered.wait()
    finally:
        plain.stop()
        steered.stop()


@pytest.fixture(scope="module")
def plain(servers: tuple[Server, Steered]) -> Server:
    return servers[0]


@pytest.fixture(params=["random", "real"])
def server(request: pytest.FixtureRequest, servers: tuple[Server, Steered]) -> Steered:
    servers[1].steer(request.param)
    return servers[1]


@pytest.fixture
def steered(servers: tuple[Server, Steered]) -> Iterator[Steered]:
    yield servers[1]
    servers[1].steer("real")


def test_greedy_output_is_that_of_plain_decoding(plain: Server, server: Steered) -> None:
    """Twice, so that the second time the radix cache holds prefixes which the draft partly missed."""
    wanted = plain.all(requests(COUNT), 4)
    assert len({tuple(ids) for ids in wanted}) > COUNT / 2, "all the same would show nothing"
    for _ in range(2):
        assert server.all(requests(COUNT), 4) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_request_is_answered_as_without(plain: Server, server: Steered, kind: str) -> None:
    path, body = KINDS[kind]
    wanted = said(plain.post(path, **body))
    assert wanted and said(server.post(path, **body)) == wanted


def test_more_requests_than_slots(plain: Server, server: Steered) -> None:
    several = requests(24, seed=1)
    assert server.all(several, 12) == plain.all(several, 12)


def test_every_width_was_used(steered: Steered) -> None:
    steered.steer("random")
    answers = [steered.generate(ids, 30) for ids, _ in requests(6, seed=2)]
    used = {gamma for answer in answers for gamma in answer["meta_info"]["speckv_gamma"] if gamma is not None}
    assert {0, 1, 2, 3} <= used <= set(range(8))
    siblings = [
        sum(value) for answer in answers for value in answer["meta_info"]["speckv_siblings"] if value is not None
    ]
    assert len(set(siblings)) > 5
    assert any(hit for answer in answers for hit in answer["meta_info"]["speckv_sibling_hit"])
    assert any(answer["meta_info"]["spec_num_correct_drafts"] for answer in answers)
    for answer in answers:
        at, siblings, hits = (answer["meta_info"][f"speckv_{name}"] for name in ("gamma", "siblings", "sibling_hit"))
        assert len(at) == len(siblings) == len(hits)
        told = [round_ for round_ in zip(at, siblings, hits, strict=True) if round_[0] is not None]
        for gamma, beside, hit in told:
            assert len(beside) in (0, gamma) and all(0 <= count <= 3 for count in beside)
            assert not hit or beside[hit - 1]
        assert len(at) <= len(answer["output_ids"]) and sum(gamma is not None for gamma in at) == _rounds(answer)


def test_a_stream_tells_the_widths_as_they_come(steered: Steered) -> None:
    steered.steer("random")
    sampling = {"temperature": 0, "max_new_tokens": 30, "ignore_eos": True}
    *_, last = steered.stream("/generate", input_ids=requests(1, seed=3)[0][0], sampling_params=sampling)
    gammas = [gamma for gamma in last["meta_info"]["speckv_gamma"] if gamma is not None]
    assert len(gammas) == _rounds(last) and len(set(gammas)) > 2


def test_the_example_client_is_told_the_same(
    steered: Steered, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the OpenAI library: the totals at the end of a stream, each round with an answer that is not streamed."""
    steered.steer("random")
    monkeypatch.setattr(sys, "argv", ["sglang_client.py", ASKED, "--url", steered.base, "--tokens", "30"])
    runpy.run_path(str(ROOT / "examples" / "sglang_client.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert int(re.search(r"^\[(\d+) forwards of the target", said, re.MULTILINE)[1]) > 1
    told = {name: json.loads(of) for name, of in re.findall(r"^(speckv_\w+): (\[.*\])$", said, re.MULTILINE)}
    assert len({len(of) for of in told.values()}) == 1 and len(told) == 3 and len(set(told["speckv_gamma"])) > 1


def _rounds(answer: dict[str, Any]) -> int:
    return int(answer["meta_info"]["spec_verify_ct"])


def test_a_rested_draft_catches_up(plain: Server, steered: Steered) -> None:
    """It proposes as well as one that never rested, and far better than one that resumes with a cold cache."""
    several = [(ids, 36) for ids, _ in requests(18, seed=10)]
    wanted = plain.all(several)
    rates = {}
    for how in ("fixed", "resting", "cold"):
        steered.flush()
        steered.steer(how)
        before = steered.series()
        assert steered.all(several) == wanted
        gained = {name: value - before[name] for name, value in steered.series().items()}
        rates[how] = gained["accepted_tokens_total"] / gained["drafted_tokens_total"]
        assert (gained["resumes_total"] > 5) == (how == "resting")
    assert rates["resting"] > rates["fixed"] - 0.08 and rates["cold"] < rates["resting"] - 0.15, rates


def test_a_prefix_inherited_from_a_rested_draft_is_mended(plain: Server, steered: Steered) -> None:
    """The radix cache hands on slots that the draft never filled."""
    shared = requests(1, seed=11)[0][0] * 4
    several = [([*shared, 20 + i], 30) for i in range(8)]
    wanted = plain.all(several, 1)
    rates = []
    for first in ("fixed", "resting"):
        steered.flush()
        steered.steer(first)
        steered.generate(shared, 1)
        steered.steer("fixed")
        before = steered.series()
        answers = [steered.generate(*request) for request in several]
        assert [answer["output_ids"] for answer in answers] == wanted
        assert all(answer["meta_info"]["cached_tokens"] >= len(shared) // 16 * 16 for answer in answers)
        gained = {name: value - before[name] for name, value in steered.series().items()}
        rates.append(gained["accepted_tokens_total"] / gained["drafted_tokens_total"])
    assert rates[1] == pytest.approx(rates[0], abs=0.05), rates


def test_prompts_near_the_limit(plain: Server, server: Steered) -> None:
    long = [([7 + i, *range(3, 200)] * 3, 200) for i in range(3)]
    near = [(ids[: CONTEXT - 20 - i], 200) for i, (ids, _) in enumerate(long)]

    def outcome(which: Server, ids: list[int], tokens: int) -> Any:
        answer = which.generate(ids, tokens)
        return answer["output_ids"], answer["meta_info"]["finish_reason"]

    for ids, tokens in near:
        assert outcome(server, ids, min(tokens, CONTEXT - len(ids) - 1)) == outcome(
            plain, ids, min(tokens, CONTEXT - len(ids) - 1)
        )


def test_end_of_text_and_stop_strings(plain: Server, server: Steered) -> None:
    prompt = requests(1, seed=3)[0][0]
    wanted = plain.generate(prompt, 40)
    printable = next(character for character in wanted["text"][4:] if character.isascii())
    for sampling in ({"stop_token_ids": [wanted["output_ids"][17]], "ignore_eos": False}, {"stop": [printable]}):
        answers = [which.generate(prompt, 40, sampling=sampling) for which in (plain, server)]
        assert answers[0]["text"] == answers[1]["text"] and answers[0]["output_ids"] == answers[1]["output_ids"]
        assert answers[1]["meta_info"]["finish_reason"]["type"] == "stop"
    texts = [
        which.post(
            "/generate",
            input_ids=[ids for ids, _ in requests(16, seed=12)],
            sampling_params={"temperature": 0, "max_new_tokens": 60},
        )
        for which in (plain, server)
    ]
    assert [text["output_ids"] for text in texts[0]] == [text["output_ids"] for text in texts[1]]
    assert any(text["output_ids"][-1] == EOS for text in texts[1]), "no text ended by itself"


def test_chat_and_streaming(plain: Server, server: Steered) -> None:
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": "What is the sea?"}],
        "temperature": 0,
        "max_tokens": 24,
    }
    texts = []
    for which in (plain, server):
        answer = which.post("/v1/chat/completions", **body)
        pieces = [
            event["choices"][0]["delta"].get("content") or ""
            for event in which.stream("/v1/chat/completions", **body)
            if event["choices"]
        ]
        assert len(pieces) > 2
        texts += [answer["choices"][0]["message"]["content"], "".join(pieces)]
    assert len(set(texts)) == 1


def test_logprobs(plain: Server, server: Steered) -> None:
    wanted, got = (
        which.generate(requests(1, seed=4)[0][0], 20, return_logprob=True, top_logprobs_num=2)["meta_info"]
        for which in (plain, server)
    )
    assert [token for _, token, *_ in got["output_token_logprobs"]] == [
        token for _, token, *_ in wanted["output_token_logprobs"]
    ]
    assert [value for value, *_ in got["output_token_logprobs"]] == pytest.approx(
        [value for value, *_ in wanted["output_token_logprobs"]], abs=1e-4
    )


def test_a_penalised_request_does_not_keep_others_from_being_drafted_for(plain: Server, steered: Steered) -> None:
    steered.steer("random")
    path, body = KINDS["a penalty of one of two"]
    wanted, rounds = said(plain.post(path, **body)), []
    for _ in range(3):
        penalised, other = answers = steered.post(path, **body)
        assert said(answers) == wanted
        assert not penalised["meta_info"]["spec_num_correct_drafts"]
        rounds.append(other["meta_info"]["spec_verify_ct"])
    # One by one beside the penalised one's 40 tokens, and only then faster, would take more than 40.
    assert min(rounds) < 40


def test_json_constrained_output(plain: Server, server: Steered) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "yy"]}}, "required": ["a"]}
    sampling = {"json_schema": json.dumps(schema), "ignore_eos": False}
    wanted, got = (which.generate(requests(1, seed=5)[0][0], 60, sampling=sampling) for which in (plain, server))
    assert wanted["text"] == got["text"] and json.loads(got["text"])["a"] in ("x", "yy")


def test_aborts_in_the_middle_leave_the_others_alone(plain: Server, server: Steered) -> None:
    undisturbed_by_aborts(plain, server)


def test_kv_slots_return(server: Steered) -> None:
    """SGLang itself stops with an error when an idle server's slots do not add up."""
    server.all(requests(8, seed=7), 8)

    def load() -> dict[str, Any]:
        found: dict[str, Any] = server.get("/v1/loads")["loads"][0]
        return found

    end = time.monotonic() + 10
    while load()["num_running_reqs"] and time.monotonic() < end:
        time.sleep(0.1)
    server.flush()
    time.sleep(0.5)
    assert load()["num_running_reqs"] == load()["num_used_tokens"] == 0


def test_metrics_and_log(steered: Steered) -> None:
    steered.all(requests(8, seed=8))
    series = steered.series()
    assert series["accepted_tokens_total"] + series["wasted_tokens_total"] == series["drafted_tokens_total"] > 0
    assert series["decision_seconds_total"] > 0 and series["switches_total"] > 0
    assert {"gamma", "verify_width", "resumes_total", "fallbacks_total"} <= set(series)
    assert series["verified_positions_total"] > series["drafted_tokens_total"]
    log = steered.log.read_text()
    assert abs(log.count(" rounds; γ of the last 20") - series["rounds_total"] / 20) <= 1
    assert "Switch adaptive runtime state" not in log
    assert re.search(r"speckv: forwards of \[1, 2[^]]*\] requests timed in", log)
    assert "decided after each draft token" in log


def test_nan_signals_fall_back_are_counted_and_served(plain: Server, steered: Steered) -> None:
    several = requests(8, seed=9)
    before = steered.series()["fallbacks_total"]
    steered.steer("nan")
    assert steered.all(several) == plain.all(several)
    assert steered.series()["fallbacks_total"] > before
    assert steered.log.read_text().count("not finite") == 1


@pytest.mark.parametrize(
    ("server", "temperature", "min_p"),
    [("random", 1.0, 0.0), ("random", 0.7, 0.1), ("real", 1.0, 0.2)],
    indirect=["server"],
)
def test_sampling_has_the_targets_distribution(
    plain: Server, server: Steered, temperature: float, min_p: float
) -> None:
    drawn = distribution(server, temperature, min_p=min_p)
    assert alike(drawn_plainly(plain, temperature, min_p), drawn) > 1e-3


def test_servers_that_run_are_compared_over_their_api(plain: Server, server: Steered, tmp_path: Path) -> None:
    said, entries = bench(tmp_path, plain=plain.base, speckv=server.base)
    assert "0 of 8 answers of speckv differ from those of plain." in said
    counted = [
        sorted((e["prompt_id"], e["tokens"]) for e in entries if e["policy"] == name) for name in ("plain", "speckv")
    ]
    assert counted[0] == counted[1] and all(tokens > 10 for _, tokens in counted[0])
    assert all(e["counted"] == "usage" and len(e["arrivals_ms"]) == e["tokens"] for e in entries)
    assert "servers, as served, 4 requests at a time" in speckv(tmp_path, "recommend", "r.json")


def test_restart_on_the_same_port_in_step_mode(
    plain: Server, servers: tuple[Server, Steered], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Last, since it ends the server that the others use."""
    old = servers[1]
    old.stop()
    again = Steered(pair, tmp_path, "step", port=old.port)
    try:
        again.wait()
        wanted = plain.all(requests(COUNT), 4)
        for how in ("real", "random"):
            again.steer(how)
            for _ in range(2):
                assert again.all(requests(COUNT), 4) == wanted
        for temperature in (1.0, 0.7):
            assert alike(drawn_plainly(plain, temperature, 0.0), distribution(again, temperature)) > 1e-3
        assert "speckv: costs as stored in" in again.log.read_text()
        series = again.series()
        assert series["drafted_tokens_total"] > series["accepted_tokens_total"] > 0
        assert series["siblings_offered_total"] > series["siblings_verified_total"] > series["siblings_accepted_total"]
        assert series["siblings_accepted_total"] > 0
    finally:
        again.stop()

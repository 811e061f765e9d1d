"""The real server on loopback: whatever γ is forced upon it, it answers as it does without speculation."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sglang")

from sglang_models import CONTEXT, EOS, requests, save_pair
from sglang_server import Server

LIMITS = ("--context-length", str(CONTEXT), "--max-running-requests", "4", "--max-total-tokens", "2600")
COUNT = 64


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


def speckv(pair: tuple[Path, Path], *options: str, **environment: str) -> Server:
    return Server(
        pair[0],
        *LIMITS,
        *("--speculative-algorithm", "SPECKV", "--speculative-draft-model-path", str(pair[1])),
        *options,
        environment=environment,
    )


@pytest.fixture(scope="module")
def servers(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """``plain``, without speculation; ``forced``, at random widths; ``real``, with the shipped policy. All resident."""
    config = tmp_path_factory.mktemp("config") / "speckv.json"
    config.write_text(json.dumps({"max_gamma": 6, "log_every": 20}))
    started = {
        "plain": Server(pair[0], *LIMITS, "--grammar-backend", "xgrammar"),
        # Small chunks, so that a prompt is read in several; pages, so that slots are handed out several at a time.
        "forced": speckv(
            pair,
            *("--speculative-num-steps", "7", "--chunked-prefill-size", "48", "--grammar-backend", "xgrammar"),
            SPECKV_TEST_POLICY="random",
        ),
        "real": speckv(
            pair, "--speculative-adaptive-config", str(config), "--enable-metrics", "--page-size", "16"
        ),
    }
    try:
        yield {name: server.wait() for name, server in started.items()}
    finally:
        for server in started.values():
            server.stop()


@pytest.fixture(params=["forced", "real"])
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    return servers[request.param]


def test_greedy_output_is_that_of_plain_decoding(servers: dict[str, Server], server: Server) -> None:
    """Twice, so that the second time the radix cache holds prefixes which the draft partly missed."""
    wanted = servers["plain"].all(requests(COUNT), 4)
    assert len({tuple(ids) for ids in wanted}) > COUNT / 2, "all the same would show nothing"
    for _ in range(2):
        assert server.all(requests(COUNT), 4) == wanted


def test_more_requests_than_slots(servers: dict[str, Server], server: Server) -> None:
    several = requests(24, seed=1)
    assert server.all(several, 12) == servers["plain"].all(several, 12)


def test_forced_widths_were_all_used(servers: dict[str, Server]) -> None:
    answers = [servers["forced"].generate(ids, 30) for ids, _ in requests(6, seed=2)]
    used = {gamma for answer in answers for gamma in answer["meta_info"]["speckv_gamma"]}
    assert {0, 1, 2, 3} <= used <= set(range(8))
    assert any(answer["meta_info"]["spec_num_correct_drafts"] for answer in answers)


def test_prompts_near_the_limit(servers: dict[str, Server], server: Server) -> None:
    long = [([7 + i, *range(3, 200)] * 3, 200) for i in range(3)]
    near = [(ids[: CONTEXT - 20 - i], 200) for i, (ids, _) in enumerate(long)]

    def outcome(which: Server, ids: list[int], tokens: int) -> Any:
        answer = which.generate(ids, tokens)
        return answer["output_ids"], answer["meta_info"]["finish_reason"]

    for ids, tokens in near:
        assert outcome(server, ids, min(tokens, CONTEXT - len(ids) - 1)) == outcome(
            servers["plain"], ids, min(tokens, CONTEXT - len(ids) - 1)
        )


def test_end_of_text_and_stop_strings(servers: dict[str, Server], server: Server) -> None:
    wanted = servers["plain"].generate(requests(1, seed=3)[0][0], 40)
    text, ids = wanted["text"], wanted["output_ids"]
    for sampling in (
        {"stop_token_ids": [ids[17]]},
        {"stop": [text[9:11]]},
        {"ignore_eos": False, "logit_bias": {str(EOS): 20.0}},
    ):
        answers = [
            which.generate(requests(1, seed=3)[0][0], 40, sampling=sampling) for which in (servers["plain"], server)
        ]
        assert answers[0]["text"] == answers[1]["text"] and answers[0]["output_ids"] == answers[1]["output_ids"]
        assert answers[1]["meta_info"]["finish_reason"]["type"] == "stop"


def test_chat_and_streaming(servers: dict[str, Server], server: Server) -> None:
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": "What is the sea?"}],
        "temperature": 0,
        "max_tokens": 24,
    }
    texts = []
    for which in (servers["plain"], server):
        answer = which.post("/v1/chat/completions", **body)
        pieces = [
            event["choices"][0]["delta"].get("content") or ""
            for event in which.stream("/v1/chat/completions", **body)
            if event["choices"]
        ]
        assert len(pieces) > 2
        texts += [answer["choices"][0]["message"]["content"], "".join(pieces)]
    assert len(set(texts)) == 1


def test_logprobs(servers: dict[str, Server], server: Server) -> None:
    wanted, got = (
        which.generate(requests(1, seed=4)[0][0], 20, return_logprob=True, top_logprobs_num=2)["meta_info"]
        for which in (servers["plain"], server)
    )
    assert [token for _, token, *_ in got["output_token_logprobs"]] == [
        token for _, token, *_ in wanted["output_token_logprobs"]
    ]
    assert [value for value, *_ in got["output_token_logprobs"]] == pytest.approx(
        [value for value, *_ in wanted["output_token_logprobs"]], abs=1e-4
    )


def test_penalties(servers: dict[str, Server], server: Server) -> None:
    """SGLang applies penalties per round when it speculates, so only that all is answered can be asked."""
    answer = server.generate([5, 6, 7], 24, sampling={"frequency_penalty": 0.5})
    assert len(answer["output_ids"]) == 24


def test_json_constrained_output(servers: dict[str, Server]) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "yy"]}}, "required": ["a"]}
    answers = [
        servers[name].generate(
            requests(1, seed=5)[0][0], 60, sampling={"json_schema": json.dumps(schema), "ignore_eos": False}
        )
        for name in ("plain", "forced")
    ]
    assert answers[0]["text"] == answers[1]["text"]
    assert json.loads(answers[1]["text"])["a"] in ("x", "yy")


def test_aborts_in_the_middle_leave_the_others_alone(servers: dict[str, Server], server: Server) -> None:
    several = requests(24, seed=6)
    wanted = servers["plain"].all(several)
    stop = threading.Event()

    def disturb() -> int:
        count = 0
        while not stop.is_set():
            events = server.stream(
                "/generate",
                rid=f"doomed-{count}",
                input_ids=[9, count % 200 + 3, 11],
                sampling_params={"temperature": 0, "max_new_tokens": 300, "ignore_eos": True},
            )
            next(events)
            server.post("/abort_request", rid=f"doomed-{count}")
            assert list(events)[-1]["meta_info"]["finish_reason"]["type"] == "abort"
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        disturbing = pool.submit(disturb)
        try:
            assert server.all(several) == wanted
        finally:
            stop.set()
        assert disturbing.result() >= 2


def test_kv_slots_return(server: Server) -> None:
    """SGLang itself stops with an error when an idle server's slots do not add up."""
    server.all(requests(8, seed=7), 8)
    for _ in range(50):
        loads = server.get("/v1/loads")["loads"][0]
        if loads["num_running_reqs"] == 0:
            break
        time.sleep(0.1)
    server.post("/flush_cache")
    time.sleep(0.5)
    loads = server.get("/v1/loads")["loads"][0]
    assert loads["num_used_tokens"] == 0 and loads["num_running_reqs"] == 0


def test_metrics_and_log(servers: dict[str, Server]) -> None:
    server = servers["real"]
    gammas = server.generate(requests(1, seed=8)[0][0], 30)["meta_info"]["speckv_gamma"]
    assert gammas and set(gammas) <= set(range(7))
    series = {
        line.split("{")[0]: float(line.split()[-1])
        for line in server.get("/metrics").splitlines()
        if line.startswith("speckv:") and not line.startswith("speckv:rounds")
    }
    assert series["speckv:accepted_tokens_total"] + series["speckv:wasted_tokens_total"] == pytest.approx(
        series["speckv:drafted_tokens_total"]
    )
    assert series["speckv:drafted_tokens_total"] > 0 and series["speckv:decision_seconds_total"] > 0
    assert {"speckv:gamma", "speckv:switches_total", "speckv:resumes_total"} <= set(series)
    assert series["speckv:fallbacks_total"] == 0
    rounds = sum(
        float(line.split()[-1]) for line in server.get("/metrics").splitlines() if line.startswith("speckv:rounds_total")
    )
    log = server.log.read_text()
    assert abs(log.count(" rounds; γ of the last 20") - rounds / 20) <= 1
    assert "Switch adaptive runtime state" not in log


def test_nan_signals_fall_back_are_counted_and_served(servers: dict[str, Server], pair: tuple[Path, Path]) -> None:
    several = requests(8, seed=9)
    server = speckv(pair, "--enable-metrics", SPECKV_TEST_POLICY="nan")
    try:
        assert server.wait().all(several) == servers["plain"].all(several)
        gammas = server.generate(*several[0])["meta_info"]["speckv_gamma"]
        assert 4 in gammas and set(gammas) <= {0, 1, 4}
        counted = next(line for line in server.get("/metrics").splitlines() if line.startswith("speckv:fallbacks"))
        assert float(counted.split()[-1]) > 0
        assert server.log.read_text().count("not finite") == 1
    finally:
        server.stop()


def test_a_foreign_controller_stops_the_launch_with_one_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"something else")
    config = tmp_path / "speckv.json"
    config.write_text(json.dumps({"controller": str(tmp_path / "mine.onnx")}))
    server = speckv(pair, "--speculative-adaptive-config", str(config))
    with pytest.raises(RuntimeError, match="exited with 1") as refused:
        server.wait()
    assert "mine.onnx" in str(refused.value).strip().splitlines()[-1]
    assert "Traceback" not in str(refused.value)

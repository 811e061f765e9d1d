"""Heads of the target as drafts, on the real server: whatever is drafted, it answers as without speculation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sglang")

from sglang_checks import alike, distribution, drawn_plainly, undisturbed_by_aborts
from sglang_kinds import KINDS, said
from sglang_models import requests, save_head_pair, save_mtp
from sglang_steered import LIMITS, PLAIN, Steered

from speckv.benchmarks.bench.sglang_server import Server

COUNT = 64
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return save_head_pair(tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def plains() -> Iterator[dict[Path, Server]]:
    """Servers without speculation by their models: one for all that is compared with it."""
    started: dict[Path, Server] = {}
    yield started
    for server in started.values():
        server.stop()


@pytest.fixture(scope="module", params=["EAGLE3-token", "EAGLE3-step", "NEXTN-token"])
def servers(
    request: pytest.FixtureRequest,
    head: Pair,
    plains: dict[Path, Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, Steered]]:
    """Without speculation, and with a head that we decide about."""
    algorithm, mode = request.param.split("-")
    pair = head if algorithm == "EAGLE3" else save_mtp(tmp_path_factory.mktemp("mtp"))
    if pair[0] not in plains:
        plains[pair[0]] = Server(pair[0], *PLAIN)
    folder = tmp_path_factory.mktemp("steered")
    steered = Steered(pair, folder, mode, (), {"SPECKV_TEST_RANKS": str(folder)}, algorithm)
    try:
        yield plains[pair[0]].wait(), steered.wait()
    finally:
        steered.stop()


@pytest.fixture(params=["random", "real"])
def server(request: pytest.FixtureRequest, servers: tuple[Server, Steered]) -> Steered:
    servers[1].steer(request.param)
    return servers[1]


def test_greedy_output_is_that_of_plain_decoding(servers: tuple[Server, Steered], server: Steered) -> None:
    """Twice, so that the second time prompts are found in the radix cache."""
    wanted = servers[0].all(requests(COUNT), 4)
    assert len({tuple(ids) for ids in wanted}) > COUNT / 2, "all the same would show nothing"
    for _ in range(2):
        assert server.all(requests(COUNT), 4) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_request_is_answered_as_without(
    servers: tuple[Server, Steered], server: Steered, kind: str
) -> None:
    path, body = KINDS[kind]
    wanted = said(servers[0].post(path, **body))
    assert wanted and said(server.post(path, **body)) == wanted


@pytest.mark.parametrize(
    ("server", "temperature", "min_p"),
    [("random", 1.0, 0.0), ("random", 0.7, 0.1), ("real", 1.0, 0.2)],
    indirect=["server"],
)
def test_sampling_has_the_targets_distribution(
    servers: tuple[Server, Steered], server: Steered, temperature: float, min_p: float
) -> None:
    drawn = distribution(server, temperature, min_p=min_p)
    assert alike(drawn_plainly(servers[0], temperature, min_p), drawn) > 1e-3


def test_aborts_in_the_middle_leave_the_others_alone(servers: tuple[Server, Steered], server: Steered) -> None:
    undisturbed_by_aborts(servers[0], server)


def test_trees_are_drafted_and_their_tokens_accepted(servers: tuple[Server, Steered], head: Pair) -> None:
    servers[1].steer("random")
    answers = [servers[1].generate(ids, 30) for ids, _ in requests(24, seed=2)]
    used = {gamma for answer in answers for gamma in answer["meta_info"]["speckv_gamma"] if gamma is not None}
    assert {0, 1, 2, 3} <= used <= set(range(8))
    beside = {sum(each) for answer in answers for each in answer["meta_info"]["speckv_siblings"] if each is not None}
    assert len(beside) > 5
    accepted = sum(answer["meta_info"]["spec_num_correct_drafts"] for answer in answers)
    siblings = sum(hit or 0 for answer in answers for hit in answer["meta_info"]["speckv_sibling_hit"])
    assert accepted > 20 and siblings > 5


Draft = tuple[list[int], list[float]]


def drafts(server: Steered, how: str) -> tuple[dict[tuple[Any, int], Draft], int]:
    """By prompt and how much was said: what was drafted next, and the entropies of these tokens that were seen.

    And in how many rounds the draft caught up to draft nothing.
    """
    server.flush()
    server.steer(how)
    notes = server.file.with_name("rank-0")
    notes.write_text("")
    server.all([(ids, 8 if number % 12 else 150) for number, (ids, _) in enumerate(requests(36, seed=4))], 4)
    said: Counter[str] = Counter()
    found, overdue = {}, 0
    for note in map(json.loads, notes.read_text().splitlines()):
        this, gamma = note["round"], note["round"]["gamma"]
        width = len(this["drafted"]) // this["requests"]
        for row, (name, prompt) in enumerate(note["who"]):
            if gamma:
                spine = this["drafted"][row * width + 1 :][:gamma]
                found[tuple(prompt), said[name]] = spine, [level[row] for level in note["saw"]]
            said[name] += this["accepted"][row]
        overdue += note["caught_up"] > 0 and not gamma
    return found, overdue


def test_after_a_rest_it_drafts_what_it_would_have_drafted(servers: tuple[Server, Steered]) -> None:
    """Of requests that missed a few tokens, or so many that it caught up in between, beside others that missed none."""
    server = servers[1]
    worked, _ = drafts(server, "fixed")
    for how, least in (("resting", 40), ("seldom", 5)):
        rested, overdue = drafts(server, how)
        assert (overdue > 3) == (how == "seldom")
        both = rested.keys() & worked.keys()
        assert len(both) >= least
        for key in both:
            assert rested[key][0] == worked[key][0]
            assert rested[key][1] == pytest.approx(worked[key][1], abs=1e-4)


def test_unsupported_combinations_are_refused_in_one_line(head: Pair, tmp_path: Path) -> None:
    config = tmp_path / "speckv.json"
    config.write_text(json.dumps({"speckv": {}}))
    adaptive = ("--speculative-adaptive", "--speculative-adaptive-config", str(config))
    draft = ("--speculative-draft-model-path", str(head[1]))
    refused = {
        ("--speculative-algorithm", "EAGLE3", *draft, *adaptive[1:]): "add that flag",
        ("--speculative-algorithm", "EAGLE3", *draft, *adaptive, "--speculative-eagle-topk", "2"): "topk",
        ("--speculative-algorithm", "EAGLE3", *draft, *adaptive, "--enable-multi-layer-eagle"): "multi_layer",
        ("--speculative-algorithm", "STANDALONE", *draft, *adaptive): "--speculative-algorithm SPECKV",
        ("--speculative-algorithm", "DFLASH", *draft, *adaptive): "not for DFLASH",
        ("--speculative-algorithm", "EAGLE3", *draft, *adaptive, "--pp-size", "2"): "pipeline parallelism",
    }
    for options, what in refused.items():
        server = Server(head[0], *LIMITS, *options)
        try:
            with pytest.raises(RuntimeError, match="exited with 1") as refusal:
                server.wait()
        finally:
            server.stop()
        last = str(refusal.value).strip().splitlines()[-1]
        assert last.startswith("speckv: ") and what in last, last
        assert "Traceback" not in str(refusal.value)


def test_without_the_object_it_is_sglangs_own(head: Pair, tmp_path: Path) -> None:
    """Its worker, its lengths, and none of our fields."""
    config = tmp_path / "adaptive.json"
    config.write_text(json.dumps({"1": {"candidate_steps": [1, 3]}}))
    adaptive = ("--speculative-adaptive", "--speculative-adaptive-config", str(config))
    algorithm = ("--speculative-algorithm", "EAGLE3", "--speculative-draft-model-path", str(head[1]))
    server = Server(head[0], *LIMITS, *algorithm, *adaptive)
    try:
        answer = server.wait().generate(requests(1)[0][0], 12)
        assert not [name for name in answer["meta_info"] if name.startswith("speckv")]
        log = server.log.read_text()
        assert "candidate_steps=[1, 3]" in log and "speckv: compression" not in log
    finally:
        server.stop()

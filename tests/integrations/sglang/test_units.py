"""The SGLang integration without a server: configuration, draft cache, ranks, compatibility."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pages import ROOT

pytest.importorskip("sglang")

from sglang.srt.sampling.sampling_params import SamplingParams
from sglang_models import save_pair

from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policies.throughput import ThroughputPolicy
from speckv.controller.policy import BEST, Policy, Request, Round
from speckv.integrations.device import sent
from speckv.integrations.runtime import Controller
from speckv.integrations.sglang import costs
from speckv.integrations.sglang.backend import for_trees
from speckv.integrations.sglang.config import (
    TREES,
    Config,
    LaunchError,
    ceiling,
    load_controller,
    read_config,
    tree_sizes,
)
from speckv.integrations.sglang.decisions import HICCUP, Decisions
from speckv.integrations.sglang.draft_cache import DraftCache
from speckv.integrations.sglang.letter import Letter
from speckv.integrations.sglang.metrics import Metrics
from speckv.integrations.sglang.pairing import check_pair
from speckv.integrations.sglang.prebuilt import Prebuilt
from speckv.integrations.sglang.ranks import Ranks
from speckv.integrations.sglang.timing import Stopwatch
from speckv.integrations.sglang.under_way import UNKNOWN
from speckv.integrations.signals import WIDTH, pack


def written(folder: Path, **keys: Any) -> str:
    path = folder / "speckv.json"
    path.write_text(json.dumps(keys))
    return str(path)


def test_no_configuration_is_one() -> None:
    config = read_config(None)
    assert config == Config() and ceiling(config, None) == 8
    assert load_controller(config) is not None


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"gama": 4}, "gama"),
        ({"gamma": "4"}, "gamma"),
        ({"gamma": 4, "objective": "throughput"}, "contradicts objective"),
        ({"gamma": 4, "controller": "x.onnx", "mode": "step"}, "contradicts controller, mode"),
        ({"objective": "latency"}, "throughput, tokens"),
        ({"objective": "tokens", "mode": "token"}, "contradicts mode token"),
        ({"widths": [0, 4]}, "mode step"),
        ({"max_gamma": 21}, "within 1 … 20"),
        ({"gamma": 6, "max_gamma": 4}, "contradicts max_gamma 4"),
        ({"log_every": 0}, "log_every"),
        ({"log_level": "loud"}, "log_level"),
        ({"compression": "int3"}, "int3"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    path = written(tmp_path, **keys)
    with pytest.raises(LaunchError, match=words) as refusal:
        read_config(path)
    assert "\n" not in str(refusal.value) and path in str(refusal.value)


def test_no_json_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "speckv.json").write_text("{")
    for path in (tmp_path / "speckv.json", tmp_path / "absent.json", tmp_path):
        with pytest.raises(LaunchError, match=str(path)):
            read_config(str(path))


def test_ceiling_and_the_server_flag_must_agree() -> None:
    assert ceiling(Config(max_gamma=6), None) == ceiling(Config(), 6) == ceiling(Config(max_gamma=6), 6) == 6
    assert ceiling(Config(gamma=3), None) == 3
    with pytest.raises(LaunchError, match="--speculative-num-steps 4 contradicts max_gamma 6"):
        ceiling(Config(max_gamma=6), 4)
    with pytest.raises(LaunchError, match="gamma 6 is above the ceiling 4"):
        ceiling(Config(gamma=6), 4)
    with pytest.raises(LaunchError, match="within 1 … 20"):
        ceiling(Config(), 30)


def test_a_launch_error_ends_a_program_in_one_line() -> None:
    import subprocess

    code = "from speckv.integrations.sglang.config import LaunchError; raise LaunchError('speckv: no')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr == "speckv: no\n"
    with pytest.raises(Exception, match="no"):
        raise LaunchError("no")


def test_a_foreign_controller_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"not an artefact")
    for path in (tmp_path / "mine.onnx", tmp_path / "absent.onnx"):
        with pytest.raises(LaunchError, match=path.name) as refusal:
            load_controller(Config(controller=str(path)))
        assert "\n" not in str(refusal.value)


class TestDraftCache:
    rows = torch.tensor([1, 2])
    table = torch.tensor([[0] * 6, [1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]])

    def test_nothing_missed_nothing_to_do(self) -> None:
        cache, request = DraftCache(16, "cpu"), Request()
        cache.wrote(torch.tensor([1, 2, 7]), [request])
        assert request.stale == 0 and cache.starts(self.table, self.rows, [2, 1]) == [2, 1]

    def test_all_after_the_first_stale_slot_is_stale(self) -> None:
        cache, requests = DraftCache(16, "cpu"), [Request(), Request()]
        cache.wrote(self.table[self.rows, :].flatten(), requests)
        cache.missed(torch.tensor([3, 12]), requests, [1, 1])
        assert cache.starts(self.table, self.rows, [6, 6]) == [2, 5]
        assert cache.starts(self.table, self.rows, [2, 5]) == [2, 5]
        cache.missed(torch.tensor([4]), requests[:1], [requests[0].stale + 1])
        assert [request.stale for request in requests] == [2, 1]
        cache.missed(self.table[1, :3], requests[:1], [3])  # taken back, and read again up to here
        assert requests[0].stale == 3

    def test_a_slot_stays_stale_for_who_inherits_it(self) -> None:
        cache, request = DraftCache(16, "cpu"), Request()
        cache.wrote(self.table[1], [request])
        cache.missed(torch.tensor([4]), [request], [1])
        heir = torch.tensor([[1, 2, 3, 4, 13, 14]])
        assert cache.starts(heir, torch.tensor([0]), [4]) == [3]
        cache.wrote(torch.tensor([4, 5, 6]), [request])
        assert cache.starts(heir, torch.tensor([0]), [4]) == [4] and request.stale == 0


class Holder:
    """Stands for a request of SGLang: hashable, weakly referable."""

    def __init__(self, **sampling: float) -> None:
        self.origin_input_ids, self.output_ids = [5, 6, 7], [8]
        self.sampling_params = SamplingParams(**sampling)

    def finished(self) -> bool:
        return False


def posted(*probabilities: float) -> Letter:
    """Signals of one draft token per request; ``probabilities`` are those of the first of two tokens."""
    logits = torch.tensor([[math.log(p), math.log(1 - p)] for p in probabilities])
    return Letter(pack(logits.argmax(-1, keepdim=True), logits))


def test_signals_are_copied_when_they_are_posted() -> None:
    recorded = torch.tensor([[3.0, 0.5]])
    letter = Letter(recorded)
    recorded.zero_()
    assert letter.read().tolist() == [[3.0, 0.5]] and sent(letter.read(), torch.device("cpu")).tolist() == [[3.0, 0.5]]


class Deep(Policy):
    """Keeps the rounds that it was asked about and told of."""

    def __init__(self, answers: list[int], per_level: bool = False) -> None:
        self.answers, self.per_level = answers, per_level
        self.siblings = 2
        self.asked: list[list[float]] = []
        self.told: list[Round] = []

    def begin(self, this: Round, room: int) -> int:
        return self.answers.pop(0)

    def deepen(self, this: Round) -> int:
        self.asked.append(this.levels[-1][:, 1].tolist())
        return self.answers.pop(0)

    def common(self, this: Round, allowed: Sequence[int]) -> int:
        return max(count for count in allowed if count <= self.siblings)

    def observe(self, this: Round) -> None:
        self.told.append(this)


def decisions(policy: Policy) -> Decisions:
    return Decisions(policy, Ranks(), Stopwatch("cpu"), Metrics(False, {}, 1000))


class TestDecisions:
    @pytest.mark.parametrize(
        "sampling",
        [{"frequency_penalty": 0.5}, {"presence_penalty": -0.5}, {"repetition_penalty": 1.1}, {"min_new_tokens": 2}],
    )
    def test_what_sglang_would_approximate_is_not_drafted_for(self, sampling: dict[str, float]) -> None:
        deciding, other, request = decisions(Deep([3] * 5)), Holder(min_p=0.1), Holder(**sampling)
        assert deciding.begin([other], [0, 2, 4]) == 2
        assert deciding.begin([request], [0, 2, 4]) == 0
        assert deciding.begin([other, request], [0, 2, 4]) == 2
        assert deciding.round is not None and deciding.round.this.plain == {1}
        deciding.mixes = False
        assert deciding.begin([other, request], [0, 2, 4]) == 0
        if "min_new_tokens" in sampling:
            request.output_ids.append(9)
            assert deciding.begin([other, request], [0, 2, 4]) == 2

    def test_what_a_request_that_is_decoded_plainly_says_is_no_rejection(self) -> None:
        deciding, requests = decisions(Deep([2, 2])), [Holder(), Holder(repetition_penalty=1.1)]
        for served in deciding.served(requests):
            served.first = (posted(0.2, 0.9), 1)
        deciding.begin(requests, [0, 2])
        deciding.first(requests)
        assert deciding.round is not None
        deciding.round.this.gamma = 2
        deciding.round.rest = Letter(torch.full((2, 1, WIDTH), 0.25))
        deciding.round.said = Letter(torch.tensor([[3.0, 4.0, 9.0, 4.0, 5.0], [3.0, 4.0, 9.0, 4.0, 5.0]]))
        ended = deciding.finish([0, 0])
        assert ended is not None and ended.this.accepted == [0, 0]
        assert ended.this.ranks[0] > 0 and ended.this.ranks[1] == 0

    def test_a_round_is_told_as_it_was(self) -> None:
        policy = Deep([8, 5])
        deciding, requests = decisions(policy), [Holder(), Holder()]
        known, _ = deciding.served(requests)
        known.first, known.stale = (posted(0.2, 0.9), 1), 3
        assert deciding.begin(requests, [0, 2, 4, 6]) == 6
        deciding.mark("begun")
        deciding.mark("caught_up")
        assert deciding.first(requests) == 4, "rounded down to a width"
        assert policy.asked == [[pytest.approx(0.9), pytest.approx(UNKNOWN[2])]]
        assert deciding.round is not None
        this = deciding.round.this
        deciding.round.rest = Letter(torch.full((2, 3, WIDTH), 0.25))
        assert deciding.siblings(4, (0, 2, 5)) == 2
        deciding.round.places = Letter(torch.tensor([[1, 12], [0, 3]]))
        # The first is right in all of its spine; the second in one token of it, then in a sibling.
        deciding.round.said = Letter(torch.tensor([[1, 2, 3, 4, 1, 2, 3, 4, 9], [1, 2, 3, 4, 1, 8, 9, 0, 0]]))
        for point in ("drafted", "chosen", "verified", "extended"):
            deciding.mark(point)
        policy.answers.append(0)
        assert deciding.begin(requests, [0, 2, 4, 6]) == 0, "the next one begins before this one has ended"
        ended = deciding.finish([4, 2])
        assert ended is not None and ended.requests == requests and policy.told == [this]
        assert (this.position, this.emitted, len(this.levels), this.resting) == (4, 8, 4, False)
        assert (this.accepted, this.ranks, this.sibling_hits) == ([4, 1], [0, BEST], [False, False])
        assert this.siblings is not None and np.argwhere(this.siblings).tolist() == [[0, 0, 1], [1, 0, 0], [1, 1, 0]]
        assert None not in (this.draft_ms, this.verify_ms, this.extend_ms) and this.decide_ms > 0
        assert known.last is not None and known.last[:, 1].tolist() == pytest.approx([0.9, 0.25, 0.25, 0.25])
        assert known.recent.values > deciding.served(requests)[1].recent.values
        assert deciding.finish([0, 0]) is not None and policy.told[1].resting and policy.told[1].draft_ms is None
        assert known.last is not None and not policy.told[1].levels and deciding.finish([]) is None

    @pytest.mark.parametrize("overlapped", [True, False])
    def test_what_the_host_takes_between_two_rounds(self, overlapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """From one's beginning to the next one's, less the forwards; nothing where a prompt was processed between."""
        clock = SimpleNamespace(now=0.0)
        monkeypatch.setattr("time.perf_counter", lambda: clock.now)
        policy = Deep([0] * 4)
        deciding, requests = decisions(policy), [Holder()]

        def run(verify_s: float, host_s: float) -> None:
            deciding.begin(requests, [0, 2])
            deciding.mark("chosen")
            clock.now += verify_s
            deciding.mark("verified")
            if not overlapped or len(deciding._unfinished) > 1:
                deciding.finish([0])
            clock.now += host_s

        for verify_s, host_s in ((0.1, 0.02), (0.2, 5.0), (0.1, 0.03)):
            run(verify_s, host_s)
        deciding.interrupt()
        run(0.1, 0.0)
        if overlapped:
            deciding.finish([0])
        assert [(this.before_ms, this.after_rest) for this in policy.told] == [
            (None, False),
            (pytest.approx(20.0), True),
            (pytest.approx(HICCUP * 200.0), True),
            (None, False),
        ]

    def test_a_sibling_that_was_right(self) -> None:
        """Its rank is known from the candidates beside the spine's token, verified or not."""
        deciding, requests = decisions(Deep([2, 2])), [Holder(), Holder()]
        logits = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0]] * 2)
        for row, served in enumerate(deciding.served(requests)):
            served.first = Letter(pack(logits.argmax(-1, keepdim=True), logits)), row
        assert deciding.begin(requests, range(4)) == 2 and deciding.first(requests) == 2
        assert deciding.round is not None
        deciding.round.rest = Letter(pack(logits.argmax(-1, keepdim=True), logits)[:, None])
        assert deciding.siblings(2, (0, 1)) == 1
        deciding.round.places = Letter(torch.tensor([[1], [6]]))  # of the second, none
        deciding.round.said = Letter(torch.tensor([[0, 0, 2, 7, 7], [0, 0, 3, 7, 7]]))
        ended = deciding.finish([1, 0])
        assert ended is not None
        assert (ended.this.accepted, ended.this.ranks) == ([0, 0], [2, 3])
        assert ended.this.sibling_hits == [True, False] and ended.this.offered_siblings == 1 and ended.this.emitted == 3

    def test_every_level_is_asked_about(self) -> None:
        policy = Deep([6, 6, 6, 2], per_level=True)
        deciding, requests = decisions(policy), [Holder()]
        deciding.served(requests)[0].first = posted(0.8), 0
        assert deciding.begin(requests, range(8)) == 6 and deciding.first(requests) == 6
        assert deciding.deepen(posted(0.7).read()) == 6 and deciding.deepen(posted(0.4).read()) == 2
        assert deciding.round is not None
        assert deciding.siblings(2, (0,)) == 0
        deciding.round.said = Letter(torch.tensor([[5, 6, 5, 6, 7]]))
        deciding.finish([2])
        assert [asked[0] for asked in policy.asked] == pytest.approx([0.8, 0.7, 0.6])
        assert len(policy.told[0].levels) == 3 and policy.told[0].accepted == [2]

    def test_what_does_not_ask_is_told_the_signals_all_the_same(self) -> None:
        deciding, requests = decisions(FixedPolicy(3)), [Holder()]
        served = deciding.served(requests)[0]
        served.first = posted(0.8), 0
        assert deciding.begin(requests, [0, 2, 4]) == 2 and deciding.first(requests) == 2
        assert deciding.round is not None
        deciding.round.rest = Letter(torch.full((1, 1, WIDTH), 0.25))
        assert deciding.siblings(2, (0, 4)) == 0
        served.first = posted(0.5), 0  # of the round after, before this one is finished
        deciding.finish([0])
        assert served.last is not None and served.last[:, 1].tolist() == pytest.approx([0.8, 0.25])

    def test_a_request_that_is_gone_is_forgotten(self) -> None:
        deciding, requests = decisions(FixedPolicy(3)), [Holder()]
        deciding.served(requests)
        assert len(deciding._served) == 1
        requests.clear()
        assert len(deciding._served) == 0


def _rank(rank: int, address: str, results: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    group = SimpleNamespace(world_size=2, rank_in_group=rank, ranks=[0, 1], cpu_group=torch.distributed.group.WORLD)
    group.broadcast = torch.distributed.broadcast
    ranks = Ranks(group)
    policy = ThroughputPolicy(Controller.load(), 0, CostModel(Costs.linear(1.0, 20.0), extends=True), siblings=False)
    requests, taken = [Request(), Request()], []
    for turn in range(40):  # signals that differ on purpose: alone, the ranks would draft differently
        confidence = 0.98 if (turn + rank) % 2 else 0.02
        this = Round(requests)
        most = wanted = ranks.agree(lambda this=this: policy.begin(this, 8))
        taken.append(most)
        while wanted > len(this.levels) or (most and not this.levels):
            level = np.array([[5 * (1 - confidence), confidence, 0.0, 0.0, 0.0]] * 2)
            this.levels.append(level)
            wanted = ranks.agree(lambda this=this: policy.deepen(this))
        this.gamma = min(wanted, len(this.levels))
        taken.append(this.gamma)
        this.accepted, this.ranks = [0, min(1, this.gamma)], [0, 0]
        this.emitted, this.resting = sum(this.accepted) + 2, not most
        this.draft_ms, this.verify_ms, this.extend_ms = 1.0, 20.0, 1.0 + 30 * rank
        policy.observe(this)
        this.remember()
    results.put((rank, taken, ranks.decides, ranks.same(torch.full((2,), 7.0 + rank)).tolist()))
    torch.distributed.destroy_process_group()


def test_two_ranks_with_different_signals_take_rank_0s_decision(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    processes = [spawn.Process(target=_rank, args=(rank, str(tmp_path / "store"), results)) for rank in (0, 1)]
    for process in processes:
        process.start()
    answers = sorted(results.get(timeout=100) for _ in processes)
    for process in processes:
        process.join(20)
    assert [decides for _, _, decides, _ in answers] == [True, False]
    assert answers[0][1] == answers[1][1] and [same for *_, same in answers] == [[7.0, 7.0]] * 2
    assert len(set(answers[0][1])) > 2, "the decisions must vary, or agreeing on them shows nothing"


def test_one_rank_asks_nobody() -> None:
    assert Ranks().agree(lambda: 5) == 5 and Ranks().same(alone := torch.ones(1)) is alone and Ranks().decides


def test_what_states_cost_is_added_up() -> None:
    prebuilt = Prebuilt("cpu")
    assert str(prebuilt).startswith("0 states built in 0.00 s")
    for name in ("γ 0", "γ 4"):
        with prebuilt.state(name):
            pass
    prebuilt.costs["γ 4"] = (0.5, 2.0)
    assert "2 states built in 0.50 s" in str(prebuilt) and "γ 4: 500 ms 2.0 MiB" in str(prebuilt)


def test_tree_sizes_are_within_what_can_be_drafted() -> None:
    assert tree_sizes(Config(), 8) == TREES and tree_sizes(Config(), 1) == (3, 5)
    assert tree_sizes(Config(trees=(4, 30)), 8) == (4, 30) and tree_sizes(Config(trees=()), 8) == ()
    assert tree_sizes(Config(gamma=3), 8) == tree_sizes(Config(objective="tokens"), 8) == ()


def test_the_dashboard_shows_every_series_and_no_other() -> None:
    from prometheus_client import REGISTRY

    Metrics(True, {"model_name": "a"}, 1000)
    made = {series.name + "_total" * (series.type == "counter") for series in REGISTRY.collect()}
    text = (ROOT / "examples" / "grafana-speckv.json").read_text()
    shown = {name for panel in json.loads(text)["panels"] for name in re.findall(r"speckv:\w+", json.dumps(panel))}
    assert shown == {name for name in made if name.startswith("speckv:")}


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({}, "flashinfer"),
        ({"flashinfer": False}, "triton"),
        ({"sinks": True}, "triton"),
        ({"chosen": "triton"}, "triton"),
        ({"cuda": False}, "fa3"),
        ({"algorithm": "STANDALONE"}, "fa3"),
        ({"mla": True}, "fa3"),
        ({"window": 128}, "fa3"),
        ({"trees": []}, "fa3"),
        ({"steps": 1, "trees": [5]}, "flashinfer"),
        ({"steps": 1, "trees": [7]}, "fa3"),
    ],
)
def test_where_no_backend_was_named_one_is_taken_that_takes_trees(
    changed: dict[str, Any], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"flashinfer": True, "sinks": False, "chosen": "fa3", "cuda": True, "algorithm": "SPECKV", "mla": False}
    facts |= {"window": None, "trees": [3, 5], "steps": None} | changed
    monkeypatch.setattr("sglang.srt.platforms.current_platform", SimpleNamespace(is_cuda=lambda: facts["cuda"]))
    monkeypatch.setattr("sglang.srt.utils.is_flashinfer_available", lambda: facts["flashinfer"])
    config = written(tmp_path, trees=facts["trees"])
    view = SimpleNamespace(speculative_algorithm=facts["algorithm"], speculative_adaptive_config=config)
    view.speculative_num_steps = facts["steps"]
    model = SimpleNamespace(sliding_window_size=facts["window"], is_hybrid_swa=False, model_is_mrope=False)
    model.has_attention_sinks = facts["sinks"]
    assert for_trees(lambda *_: facts["chosen"], view, facts["mla"], model) == wanted


class TestKeptCosts:
    """Timed at the first start, found at the second, and whatever is wrong with either is said in a line."""

    timed = Costs({1: 1.0, 4: 2.0}, {1: 10.0, 9: 12.0})

    @pytest.fixture
    def worker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("SPECKV_CACHE", str(tmp_path))
        monkeypatch.setattr(costs, "get_parallel", lambda: SimpleNamespace(tp_size=1))
        monkeypatch.setattr(costs, "timed_costs", lambda *_: self.timed)
        model = torch.nn.Linear(8, 8)
        config = SimpleNamespace(model_path="/a/target", dtype=torch.float32, quantization=None)
        runner = SimpleNamespace(model=model, model_config=config, attn_backend=object())
        return SimpleNamespace(
            device="cpu",
            target_worker=SimpleNamespace(model_runner=runner),
            draft_worker=SimpleNamespace(draft_runner=runner, captured=False),
        )

    def start(self, worker: Any, needed: bool = True) -> costs.KeptCosts:
        return costs.KeptCosts(worker, Ranks(), needed, None)

    def test_the_second_start_finds_what_the_first_has_timed(
        self, worker: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert self.start(worker).known == self.timed
        monkeypatch.setattr(costs, "timed_costs", lambda *_: 1 / 0)
        with caplog.at_level("INFO", logger="speckv"):
            assert self.start(worker).known == self.timed
        assert "costs as stored in" in caplog.text

    def test_what_is_stored_and_does_not_fit_is_timed_anew(self, worker: Any, caplog: pytest.LogCaptureFixture) -> None:
        self.start(worker)
        (file,) = Path(os.environ["SPECKV_CACHE"]).glob("costs/*.json")
        file.write_text("{}")
        with caplog.at_level("WARNING", logger="speckv"):
            assert self.start(worker).known == self.timed
        assert "timed anew" in caplog.text and len(caplog.records) == 1
        assert json.loads(file.read_text())["verify_ms"] == {"1": 10.0, "9": 12.0}

    def test_without_timings_costs_are_guessed(
        self, worker: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(costs, "timed_costs", lambda *_: 1 / 0)
        with caplog.at_level("WARNING", logger="speckv"):
            assert self.start(worker).known == Costs.from_sizes(288.0, 288.0)
        assert "learnt while serving" in caplog.text
        assert self.start(worker, needed=False).known == Costs.from_sizes(288.0, 288.0)
        assert not list(Path(os.environ["SPECKV_CACHE"]).rglob("*.json"))

    def test_what_is_learnt_is_written_back(self, worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = self.start(worker)
        policy = ThroughputPolicy(Controller.load(), 0, CostModel(kept.known, extends=True))
        policy.cost.observe(Round([Request()] * 2, verify_ms=77.0))
        kept.keep(policy)
        assert self.start(worker).known == self.timed, "it is not written in every round"
        monkeypatch.setattr(costs, "EVERY", 0.0)
        kept.keep(FixedPolicy(3))
        kept.keep(policy)
        known = self.start(worker).known
        assert known.verify == self.timed.verify and known.batches[2].verify == {2: pytest.approx(77.0)}
        assert known.draft == self.timed.draft


class TestPairs:
    """A draft that cannot propose tokens for the target is refused in one line, before anything is loaded."""

    @staticmethod
    def arguments(target: Path, draft: Path, **more: Any) -> SimpleNamespace:
        facts = {"trust_remote_code": False, "tokenizer_mode": "auto", "skip_tokenizer_init": False}
        facts |= {"model_path": str(target), "tokenizer_path": str(target), "context_length": None}
        return SimpleNamespace(**facts | {"speculative_draft_model_path": str(draft)} | more)

    @pytest.fixture(scope="class")
    def pair(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
        return save_pair(tmp_path_factory.mktemp("pair"))

    def copy(self, draft: Path, to: Path, change: Callable[[dict[str, Any]], None], file: str) -> Path:
        shutil.copytree(draft, to)
        content = json.loads((to / file).read_text())
        change(content)
        (to / file).write_text(json.dumps(content))
        return to

    def test_what_fits(self, pair: tuple[Path, Path]) -> None:
        check_pair(self.arguments(*pair))
        check_pair(self.arguments(pair[0], pair[0].parent / "nowhere"))  # SGLang says what is wrong with it

    def test_another_tokenizer(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        def swap(content: dict[str, Any]) -> None:
            vocabulary = content["model"]["vocab"]
            vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]

        draft = self.copy(pair[1], tmp_path / "draft", swap, "tokenizer.json")
        with pytest.raises(LaunchError, match=r"another tokenizer.*same family") as refusal:
            check_pair(self.arguments(pair[0], draft))
        assert "\n" not in str(refusal.value) and str(draft) in str(refusal.value)
        check_pair(self.arguments(pair[0], draft, skip_tokenizer_init=True))

    def test_another_size_of_vocabulary(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        draft = self.copy(pair[1], tmp_path / "draft", lambda content: content.update(vocab_size=320), "config.json")
        with pytest.raises(LaunchError, match=r"vocabulary sizes differ.*259.*320"):
            check_pair(self.arguments(pair[0], draft))

    def test_fewer_positions(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        fewer = {"max_position_embeddings": 256}
        draft = self.copy(pair[1], tmp_path / "draft", lambda content: content.update(fewer), "config.json")
        with pytest.raises(LaunchError, match=r"256 tokens of context.*1024.*add --context-length 256"):
            check_pair(self.arguments(pair[0], draft))
        check_pair(self.arguments(pair[0], draft, context_length=256))

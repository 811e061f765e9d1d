"""The SGLang integration without a server: configuration, draft cache, ranks, compatibility."""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from speckv.controller.cost import Costs
from speckv.controller.policies.batch import BatchRound
from speckv.controller.policies.batch_throughput import ThroughputBatchPolicy
from speckv.integrations.runtime import Controller
from speckv.integrations.sglang.config import Config, LaunchError, ceiling, load_controller, read_config
from speckv.integrations.sglang.draft_cache import DraftCache
from speckv.integrations.sglang.mailbox import Mailbox
from speckv.integrations.sglang.prebuilt import Prebuilt
from speckv.integrations.sglang.ranks import Ranks
from speckv.integrations.signals import pack


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

    def requests(self) -> list[Any]:
        return [Holder(), Holder()]

    def test_nothing_missed_nothing_to_do(self) -> None:
        cache, requests = DraftCache(16, "cpu"), self.requests()
        cache.wrote(torch.tensor([1, 2, 7]), requests)
        assert cache.behind(requests) == 0 and cache.starts(self.table, self.rows, [2, 1]) == [2, 1]

    def test_all_after_the_first_stale_slot_is_stale(self) -> None:
        cache, requests = DraftCache(16, "cpu"), self.requests()
        cache.wrote(self.table[self.rows, :].flatten(), requests)
        cache.missed(torch.tensor([3, 12]), requests, [1, 1])
        assert cache.starts(self.table, self.rows, [6, 6]) == [2, 5]
        assert cache.starts(self.table, self.rows, [2, 5]) == [2, 5]
        assert cache.behind(requests) == 2

    def test_a_slot_stays_stale_for_who_inherits_it(self) -> None:
        cache, requests = DraftCache(16, "cpu"), self.requests()
        cache.wrote(self.table[1], requests[:1])
        cache.missed(torch.tensor([4]), requests[:1], [1])
        heir = torch.tensor([[1, 2, 3, 4, 13, 14]])
        assert cache.starts(heir, torch.tensor([0]), [4]) == [3]
        cache.wrote(torch.tensor([4, 5, 6]), requests[:1])
        assert cache.starts(heir, torch.tensor([0]), [4]) == [4] and cache.behind(requests) == 0


class Holder:
    """Stands for a request: hashable, weakly referable."""


def test_signals_reach_their_request() -> None:
    mailbox, requests = Mailbox(wait=True), [Holder(), Holder()]
    logits = torch.tensor([[0.0, 0.0], [9.0, -9.0]])
    packed = pack(logits.argmax(-1, keepdim=True), logits)
    mailbox.send_first(requests, packed[:, None])
    assert mailbox.firsts[requests[0]] == pytest.approx((math.log(2), 0.5))
    assert mailbox.firsts[requests[1]][1] == pytest.approx(1.0)
    mailbox.send_rest(requests, packed.flip(0)[:, None])
    assert mailbox.previous[requests[0]] == pytest.approx((math.log(2) / 2, 0.75, math.log(2), 0.5), abs=1e-4)


def _rank(rank: int, address: str, results: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    group = SimpleNamespace(world_size=2, rank_in_group=rank, ranks=[0, 1], cpu_group=torch.distributed.group.WORLD)
    ranks = Ranks(group)
    policy = ThroughputBatchPolicy(Controller.load(), 0, Costs.linear(1.0, 20.0))
    taken = []
    for turn in range(40):  # signals that differ on purpose: alone, the ranks would draft differently
        confidence = 0.98 if (turn + rank) % 2 else 0.02
        taken.append(ranks.agree(lambda: policy.begin(2, 0, [None, None])))
        outcome = BatchRound(2, accepted=[0, 1], draft_ms=1.0, verify_ms=20.0, extend_ms=1.0 + 30 * rank)
        signals = [[5 * (1 - confidence)]] * 2, [[confidence]] * 2
        going = bool(ranks.agree(lambda signals=signals: policy.first(*signals)))
        while going and outcome.drafted < 8:
            outcome.drafted += 1
            lists = [[5 * (1 - confidence)] * outcome.drafted] * 2, [[confidence] * outcome.drafted] * 2
            going = bool(ranks.agree(lambda lists=lists: policy.more(*lists)))
        taken.append(outcome.drafted)
        policy.observe(outcome)
    results.put((rank, taken, ranks.decides))
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
    assert [decides for _, _, decides in answers] == [True, False]
    assert answers[0][1] == answers[1][1]
    assert len(set(answers[0][1])) > 2, "the decisions must vary, or agreeing on them shows nothing"


def test_one_rank_asks_nobody() -> None:
    assert Ranks().agree(lambda: 5) == 5 and Ranks().decides


def test_what_widths_cost_is_added_up() -> None:
    prebuilt = Prebuilt("cpu")
    assert str(prebuilt).startswith("0 widths built in 0.00 s")
    for gamma in (0, 4):
        with prebuilt.width(gamma):
            pass
    prebuilt.costs[4] = (0.5, 2.0)
    assert "2 widths built in 0.50 s" in str(prebuilt) and "4: 500 ms 2.0 MiB" in str(prebuilt)

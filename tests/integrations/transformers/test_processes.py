"""A target whose weights are spread over processes, which must all run the same forwards, is decoded plainly."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.distributed.fsdp import fully_shard
from transformers_helpers import greedy, prompt, tiny_pair

from speckv.benchmarks.bench.sglang_server import free_port
from speckv.controller.policies.fixed import FixedPolicy
from speckv.integrations.transformers import attach_policy, stats

SECONDS = 120


def work(rank: int, port: int, results: Path) -> None:
    warnings.simplefilter("ignore")
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    target, draft = tiny_pair(noise=0.05)
    fully_shard(target)
    for number, more in enumerate(({}, {"synced_gpus": True}, {"synced_gpus": False})):
        # Texts of two lengths: a rank that is done goes on with forwards for the other one.
        given: dict[str, Any] = {"max_new_tokens": 6 + 5 * rank, **({"synced_gpus": True} if number < 2 else {})}
        if number == 2:
            given["max_new_tokens"] = 8
        plain = greedy(target, prompt(), **given)
        attach_policy(target, draft, FixedPolicy(4))
        ours = greedy(target, prompt(), assistant_model=draft, **{**given, **more})
        assert torch.equal(plain, ours)
        assert stats(target).rounds == 0
    (results / str(rank)).write_text("equal")
    distributed.destroy_process_group()


def test_sharded_targets_are_decoded_plainly(tmp_path: Path) -> None:
    context = multiprocessing.spawn(work, args=(free_port(), tmp_path), nprocs=2, join=False)
    assert context is not None
    ended = [context.join(SECONDS) for _ in range(2)]  # one rank after the other
    assert ended[-1], "the ranks wait for each other"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]

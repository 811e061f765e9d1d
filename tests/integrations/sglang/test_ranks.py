"""A server of several processes: ranks that share one model, and replicas that share the requests."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sglang")

from sglang_models import requests, save_pair
from sglang_steered import LIMITS, Steered, told

from speckv.benchmarks.bench.sglang_server import Server

COUNT = 32
MODES = ("token", "step")

CORES = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}
"""On a CPU, SGLang wants to be told the cores where there are more processes than NUMA nodes."""

RANKS = ("--tp-size", "2")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def servers(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Of two ranks each: without speculation, and with SPECKV in both modes."""
    started: dict[str, Server] = {}
    try:
        started["plain"] = Server(pair[0], *LIMITS, *RANKS, environment=CORES)
        for mode in MODES:
            folder = tmp_path_factory.mktemp(mode)
            started[mode] = Steered(pair, folder, mode, RANKS, CORES | {"SPECKV_TEST_RANKS": str(folder)})
        for server in started.values():
            server.wait()
        yield started
    finally:
        for server in started.values():
            server.stop()


def noted(folder: Path) -> list[list[dict[str, Any]]]:
    """The rounds of both ranks, of which one may still be writing its last."""
    for _ in range(50):
        found = [(folder / f"rank-{rank}").read_text().splitlines() for rank in (0, 1)]
        if len(found[0]) == len(found[1]):
            break
        time.sleep(0.1)
    return [[json.loads(line) for line in lines] for lines in found]


@pytest.mark.parametrize("mode", MODES)
def test_ranks_that_see_different_signals_agree_in_every_round(servers: dict[str, Server], mode: str) -> None:
    server = servers[mode]
    assert isinstance(server, Steered)
    several = requests(COUNT)
    wanted = servers["plain"].all(several)
    assert len({tuple(ids) for ids in wanted}) > COUNT / 2, "all the same would show nothing"
    for how in ("random", "real"):
        server.steer(how)
        assert server.all(several) == wanted
    first, second = noted(server.file.parent)
    assert [one["round"] for one in first] == [one["round"] for one in second]
    saw = [(one["saw"], other["saw"]) for one, other in zip(first, second, strict=True) if one["saw"]]
    assert all(one != other for one, other in saw) and len(saw) > 40
    rounds = [one["round"] for one in first]
    assert {one["gamma"] for one in rounds} == set(range(8))
    trees = [one for one in rounds if len(one["drafted"]) > one["requests"] * (1 + one["gamma"])]
    assert len(trees) > 20
    assert sum(sum(one["accepted"]) for one in rounds) > 1.1 * sum(one["requests"] for one in rounds)


def test_replicas_share_the_requests(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Each decides for its own batches; they keep one file of costs, and what they count adds up."""
    started: list[Server] = []
    try:
        started.append(plain := Server(pair[0], *LIMITS))
        alone = CORES | {"SPECKV_CACHE": str(tmp_path)}
        started.append(both := Steered(pair, tmp_path, options=("--dp-size", "2"), environment=alone))
        wanted = plain.wait().all(requests(COUNT))
        both.wait().steer("random")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda request: both.generate(*request), requests(COUNT)))
        assert [answer["output_ids"] for answer in answers] == wanted
        infos = [answer["meta_info"] for answer in answers]
        assert min(Counter(info["dp_rank"] for info in infos)[replica] for replica in (0, 1)) > COUNT / 4
        for label, of in (("", infos), *((f'dp_rank="{n}"', [i for i in infos if i["dp_rank"] == n]) for n in (0, 1))):
            series, sums = both.series(label), told(of)
            assert {name: series[name] for name in sums} == sums and min(sums.values()) > 0
        assert len(list((tmp_path / "costs").iterdir())) == 1
    finally:
        for server in started:
            server.stop()

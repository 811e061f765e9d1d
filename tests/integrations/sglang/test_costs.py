"""One store of costs for servers that start, learn and are killed at any moment: processes of the store's own code."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pages import ROOT

pytest.importorskip("sglang")

from sglang_models import requests, save_pair
from sglang_steered import Steered

from speckv.controller.calibration import read_costs
from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policy import Request, Round
from speckv.integrations.cost_store import costs_path
from speckv.integrations.sglang import costs
from speckv.integrations.sglang.ranks import Ranks

KILLS = 50
"""Of each of two servers."""

LONGEST = 6.0
"""From a server's start to its end, in the times that a start takes here."""

BOTH = "both"
"""The pair that both serve; each has another of its own name."""

ROWS = range(1, 400)
TIMED = Costs({rows: 1.0 + rows for rows in ROWS}, {rows: 10.0 + rows for rows in ROWS})

Table = tuple[tuple[int, int, float], ...]
"""What a verify takes, by requests and rows, as it is written."""


class Learning(FixedPolicy):
    """Learns what rounds take, and goes by nothing."""

    def __init__(self, known: Costs) -> None:
        super().__init__(0)
        self.cost = CostModel(known, extends=True)

    def learnt(self) -> Costs:
        return self.cost.learnt()


def table(of: Costs) -> Table:
    batches = of.by_requests.items()
    return tuple((size, rows, round(ms, 4)) for size, one in batches for rows, ms in one.verify.items())


def worker(pair: str) -> Any:
    """As much of a worker as its costs are about."""
    config = SimpleNamespace(model_path=f"/models/{pair}", dtype=torch.float32, quantization=None)
    runner = SimpleNamespace(model=torch.nn.Linear(8, 8), model_config=config, attn_backend=object())
    target, draft = SimpleNamespace(model_runner=runner), SimpleNamespace(draft_runner=runner, captured=False)
    return SimpleNamespace(device="cpu", target_worker=target, draft_worker=draft)


def one_rank(patch: Any = setattr) -> None:
    patch(costs, "get_parallel", lambda: SimpleNamespace(tp_size=1))


def serve(name: str, store: str, says: Connection) -> None:
    """Finds costs or times them, then learns from one round after the other and writes after each, for ever."""
    os.environ["SPECKV_CACHE"] = store
    one_rank()
    costs.timed_costs, costs.EVERY = lambda *_: TIMED, 0.0
    kept = {pair: costs.KeptCosts(worker(pair), Ranks(), True, None) for pair in (name, BOTH)}
    policies = {pair: Learning(one.known) for pair, one in kept.items()}
    for pair, one in kept.items():
        says.send(("began with", pair, table(one.known)))
    while True:
        for pair, policy in policies.items():
            policy.cost.observe(Round([Request()] * 2, verify_ms=random.uniform(10.0, 99.0)))
            says.send(("writes", pair, table(policy.learnt())))
            kept[pair].keep(policy)
            says.send(("wrote", pair, ()))


class Running:
    """A server under way, and what may be stored for its own pair."""

    def __init__(self, context: Any, name: str, store: Path, stored: Table | None, longest_s: float) -> None:
        self.name, self.stored, self.may_be = name, stored, [stored]
        self.counts: Counter[str] = Counter()
        self.shared: set[Table] = set()
        self.says, end = context.Pipe(duplex=False)
        self.process = context.Process(target=serve, args=(name, str(store), end), daemon=True)
        self.process.start()
        end.close()
        self.dies = time.monotonic() + random.uniform(0.0, longest_s)

    def listen(self) -> None:
        """All that it has said so far; the end of a message that it was killed in is the end of the pipe."""
        try:
            while self.says.poll():
                what, pair, said = self.says.recv()
                self.counts[what] += 1
                if pair == BOTH:
                    self.shared |= {said} - {()}
                elif what == "began with":
                    assert said == (table(TIMED) if self.stored is None else self.stored), "an update was lost"
                    self.may_be = [said]
                else:
                    self.may_be = [self.may_be[-1], said] if what == "writes" else self.may_be[-1:]
        except (EOFError, OSError):
            pass

    def end(self) -> None:
        random.choice((self.process.kill, self.process.terminate))()
        self.process.join()
        assert self.process.exitcode in (-signal.SIGKILL, -signal.SIGTERM), "it ended by itself"
        self.listen()
        self.says.close()


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Processes that begin with all imported."""
    one_rank(monkeypatch.setattr)
    # Where the server of forks finds this file: it takes no sys.path over, and goes on where it cannot import.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "tests" / "helpers"))))
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([__name__])
    yield made
    made.set_forkserver_preload([])


def test_servers_that_are_killed_at_any_moment_lose_nothing(
    context: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one has written of its own pair is there at its next start, and no file is ever half written."""
    monkeypatch.setenv("SPECKV_CACHE", str(tmp_path))
    abouts = {pair: costs.about(worker(pair)) for pair in ("first", "second", BOTH)}
    paths = {pair: costs_path(about) for pair, about in abouts.items()}
    assert len(set(paths.values())) == 3

    def read(pair: str) -> Table | None:
        if not paths[pair].exists():
            return None
        found, about = read_costs(paths[pair])
        assert about == abouts[pair]
        return table(found)

    counts: Counter[str] = Counter()
    shared: set[Table | None] = {None, table(TIMED)}
    starts: list[float] = []
    for _ in range(4):  # in the first of which SGLang is imported
        begins = time.monotonic()
        one = Running(context, BOTH, tmp_path, read(BOTH), 0.0)
        wait([one.says], 60)
        starts.append(time.monotonic() - begins)
        one.end()
        shared |= one.shared
    longest_s = LONGEST * max(starts[1:])
    running = [Running(context, name, tmp_path, None, longest_s) for name in ("first", "second")]
    try:
        # On a busy machine more of them end before they have written.
        enough, at_last = {"killed": 2 * KILLS, "began with": KILLS + 1, "wrote": 4 * KILLS + 1}, time.monotonic() + 240
        while any(counts[what] < least for what, least in enough.items()) and time.monotonic() < at_last:
            for place, one in enumerate(running):
                read(one.name)
                found = read(BOTH)
                for each in running:
                    each.listen()
                    shared |= each.shared
                assert found in shared
                if time.monotonic() < one.dies:
                    continue
                one.end()
                counts += one.counts
                counts["killed"] += 1
                stored = read(one.name)
                assert stored in one.may_be or (stored == table(TIMED) and one.may_be == [None]), "an update was lost"
                running[place] = Running(context, one.name, tmp_path, stored, longest_s)
    finally:
        for one in running:
            one.end()
    assert set(paths.values()) == set((tmp_path / "costs").glob("*.json"))
    assert all(counts[what] >= least for what, least in enough.items()), counts


ROUNDS = 50
"""In each of which two real servers are started at once and killed."""


@pytest.mark.long
def test_real_servers_that_start_and_stop_at_once_share_one_store(tmp_path: Path) -> None:
    """Every fifth time the store is empty, so that both time their rounds, and write, at once."""
    pair = save_pair(tmp_path)
    store = tmp_path / "cache" / "costs"
    counts: Counter[str] = Counter()
    files = [tmp_path / name for name in ("one", "other")]
    for file in files:
        file.mkdir()
    began = time.monotonic()
    lasts = 60.0
    for number in range(ROUNDS):
        if number % 5 == 0:
            for file in store.glob("*.json"):
                file.unlink()
        kept = {file: table(read_costs(file)[0]) for file in store.glob("*.json")}
        started, start = [Steered(pair, folder) for folder in files], time.monotonic()
        # At first until both serve; later most are killed at any moment of what that took, some right after.
        dies = [start + random.uniform(0.0, lasts) if number and random.random() < 0.8 else None for _ in started]
        try:
            while started:
                for server, at in zip(list(started), list(dies), strict=True):
                    read = {file: table(read_costs(file)[0]) for file in store.glob("*.json")}
                    assert all(read[file] == known for file, known in kept.items()), "an update was lost"
                    counts["read"] += 1
                    serves = at is None and "speckv: forwards of" in server.tail(40_000)
                    serves = serves or (at is None and "speckv: costs as stored in" in server.tail(40_000))
                    if serves:
                        assert server.wait().all(requests(2)), "it serves"
                        counts["served"] += 1
                        counts["found"] += "costs as stored in" in server.tail(40_000)
                        kept.clear()  # from now on it may write what it has learnt
                        lasts = min(lasts, time.monotonic() - start)
                    assert server.process.poll() is None, server.tail()
                    if serves or (at is not None and time.monotonic() > at):
                        server.stop()
                        place = started.index(server)
                        del started[place], dies[place]
                        counts["killed"] += 1
                time.sleep(0.05)
                assert time.monotonic() - start < 300, "a server neither serves nor ends"
        finally:
            for server in started:
                server.stop()
        print(f"{number + 1} of {ROUNDS}, {time.monotonic() - began:.0f} s: {dict(counts)}", flush=True)
    assert counts["killed"] == 2 * ROUNDS and counts["found"] > ROUNDS / 10
    assert len(list(store.glob("*.json"))) == 1

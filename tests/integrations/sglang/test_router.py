"""Two servers with SPECKV behind SGLang's router, of which any process may be killed while requests are under way."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sglang")
pytest.importorskip("sglang_router", reason="the router is a package of its own, sglang-router")

from sglang_models import Request, requests, save_pair
from sglang_steered import Steered, bench, told

from speckv.benchmarks.bench.sglang_server import HOST, Server, free_port
from speckv.controller.calibration import read_costs

CONCURRENCY = 8
COUNT = 200
MORE = 40
KINDS = 50
"""Different requests, asked over and over again."""

FLAGS = (
    *("--policy", "round_robin"),
    # A server that is gone is left out after a second, and one that is back gets requests again as soon.
    *("--health-check-interval-secs", "1", "--health-failure-threshold", "1", "--health-success-threshold", "1"),
    *("--cb-failure-threshold", "2", "--cb-success-threshold", "1", "--cb-timeout-duration-secs", "2"),
    *("--retry-max-retries", "8", "--retry-initial-backoff-ms", "100", "--retry-max-backoff-ms", "2000"),
    *("--worker-startup-check-interval", "1", "--log-level", "warn"),
)

Answer = dict[str, Any]


class Router:
    """A running router in front of ``servers``."""

    def __init__(self, folder: Path, servers: list[Steered], port: int = 0) -> None:
        self.port = port or free_port()
        self.log = folder / "router.log"
        command = [sys.executable, "-W", "ignore", "-m", "sglang_router.launch_router", "--worker-urls"]
        command += [*(server.base for server in servers), "--host", HOST, "--port", str(self.port)]
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                [*command, "--prometheus-host", HOST, "--prometheus-port", str(free_port()), *FLAGS],
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )

    def ask(self, request: Request, tries: int = 1) -> Answer:
        """The answer to a greedy request; a router that is not there is asked again, half a second later."""
        ids, tokens = request
        sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
        body = json.dumps({"input_ids": ids, "sampling_params": sampling}).encode()
        made = urllib.request.Request(f"http://{HOST}:{self.port}/generate", body, {"Content-Type": "application/json"})
        for again in reversed(range(tries)):
            try:
                with urllib.request.urlopen(made, timeout=60) as answer:
                    told: Answer = json.loads(answer.read())
                    return told
            except (OSError, http.client.HTTPException) as error:
                if not again:
                    said = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
                    raise RuntimeError(f"{error!r} {said}\n{self.log.read_text()[-2000:]}") from error
                time.sleep(0.5)
        raise AssertionError("no try")

    def healthy(self) -> int:
        """How many servers it gives requests to."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{self.port}/workers") as answer:
            return sum(worker["is_healthy"] for worker in json.loads(answer.read())["workers"])
        return 0

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def until(what: Callable[[], bool], seconds: float, why: str) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.2)


def living(session: int) -> dict[int, str]:
    """The processes of a session and their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    return found


def through(router: Router, several: list[Request], tries: int, events: dict[int, Callable[[], None]]) -> list[Answer]:
    """Answers to all, in order; ``events`` happen once so many are there, while others are under way."""
    lock, done = threading.Lock(), 0

    def one(request: Request) -> Answer:
        nonlocal done
        answer = router.ask(request, tries)
        with lock:
            done += 1
            event = events.get(done)
        if event is not None:
            event()
        return answer

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return list(pool.map(one, several))


def texts(answers: list[Answer]) -> list[list[int]]:
    return [answer["output_ids"] for answer in answers]


def of(answers: list[Answer], name: str) -> list[dict[str, Any]]:
    """``meta_info`` of what the server ``name`` answered, which it has for the version of its weights."""
    return [answer["meta_info"] for answer in answers if answer["meta_info"]["weight_version"] == name]


@pytest.fixture
def started() -> Iterator[list[Server | Router]]:
    """What a test starts; ended in any case, and nothing of it is left."""
    every: list[Server | Router] = []
    try:
        yield every
    finally:
        for one in every:
            if one.process.returncode is None:  # else its number may be another's by now
                one.stop()
        with contextlib.suppress(AssertionError):
            until(lambda: not any(living(one.process.pid) for one in every), 10, "")
        left = {one.process.pid: found for one in every if (found := living(one.process.pid))}
        assert not left, left


def test_what_is_killed_loses_no_request(started: list[Server | Router], tmp_path: Path) -> None:
    pair = save_pair(tmp_path)
    ports = {"first": free_port(), "second": free_port()}
    serving: dict[str, Steered] = {}

    def serve(name: str) -> None:
        folder = tmp_path / f"{name}-{len(started)}"
        folder.mkdir()
        server = Steered(pair, folder, options=("--weight-version", name), port=ports[name])
        server.steer("random")
        serving[name] = server
        started.append(server)

    def route(port: int = 0) -> Router:
        router = Router(tmp_path, list(serving.values()), port)
        started.append(router)
        return router

    for name in ports:
        serve(name)
    for server in serving.values():
        server.wait(200)
    router = route()
    asked = requests(KINDS)
    alone = serving["first"].all(asked, CONCURRENCY)
    until(lambda: router.healthy() == 2, 60, "the router does not see both servers")

    def fresh(name: str) -> None:
        serving[name].stop()
        serve(name)

    # The router tries again what a killed server leaves unanswered; the clients ask once.
    several = asked * (COUNT // KINDS)
    answers = through(router, several, 1, {60: lambda: fresh("first")})
    assert texts(answers) == alone * (COUNT // KINDS)
    assert len(of(answers, "first")) >= 20 and len(of(answers, "second")) >= COUNT - 60

    # The one that is back takes its part again, with the costs that were stored.
    serving["first"].wait(200)
    assert "speckv: costs as stored in" in serving["first"].log.read_text()
    until(lambda: router.healthy() == 2, 30, "the router does not see the server that is back")
    later = through(router, asked[:MORE], 1, {})
    assert texts(later) == alone[:MORE]
    assert min(len(of(later, name)) for name in ports) >= MORE // 4

    # Each server counts what its answers say, so that sums over servers are those over all answers.
    for name, these in (("first", later), ("second", answers + later)):
        series, sums = serving[name].series(), told(of(these, name))
        assert {key: series[key] for key in sums} == sums
        assert min(sums.values()) > 0 and 0 < series["rounds_total"] <= len(these) * 40
    (stored,) = (tmp_path / "cache" / "costs").glob("*.json")
    read_costs(stored)

    # A router is measured like a server.
    said, _ = bench(tmp_path, alone=serving["first"].base, routed=f"http://{HOST}:{router.port}")
    assert "0 of 8 answers of routed differ from those of alone." in said

    # Clients ask again where the router itself is gone; a server whose scheduler is gone ends by itself.
    broken = serving["second"]

    def break_scheduler() -> None:
        found = living(broken.process.pid)
        (scheduler,) = (number for number, line in found.items() if "sglang::scheduler" in line)
        os.kill(scheduler, signal.SIGKILL)

    def reroute() -> None:
        router.stop()
        route(router.port)

    last = through(router, asked[:MORE], 80, {8: break_scheduler, 16: reroute})
    assert texts(last) == alone[:MORE]
    until(lambda: not living(broken.process.pid), 30, "a server without its scheduler goes on")

"""``make soak``: mixed load with aborts on a real server in either mode; nothing lost, hung, mixed up or leaked."""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from sglang_models import requests, save_pair

from speckv.benchmarks.bench.sglang_server import Server
from speckv.benchmarks.common.machine import machine, versions
from speckv.controller.files import write_whole

MOST_REQUESTS = 20_000
CLIENTS = 6
MODES = ("token", "step")
LIMITS = ("--context-length", "512", "--max-running-requests", "4", "--max-total-tokens", "2608")


def memory_mb(group: int) -> float:
    """Resident memory of a process group."""
    total = 0.0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            total += int(fields[21]) * resource.getpagesize() / 2**20
    return total


class Soak:
    """Clients that ask, abort, and compare with what plain decoding answered."""

    def __init__(self, server: Server, asked: list[Any], wanted: list[list[int]], seconds: float) -> None:
        self.server, self.asked, self.wanted = server, asked, wanted
        self.end = time.monotonic() + seconds
        self.lock = threading.Lock()
        self.sent = self.right = self.aborted = self.too_late = 0
        self.wrong: list[str] = []

    def client(self, number: int) -> None:
        generator = random.Random(number)
        while time.monotonic() < self.end:
            with self.lock:
                if self.sent >= MOST_REQUESTS:
                    return
                self.sent += 1
                turn = self.sent
            try:
                if generator.random() < 0.25:
                    self.abort(turn)
                else:
                    self.ask(generator.randrange(len(self.asked)))
            except Exception as error:
                with self.lock:
                    self.wrong.append(f"{type(error).__name__}: {error}"[:200])
                time.sleep(0.2)

    def ask(self, index: int) -> None:
        answer = self.server.generate(*self.asked[index])["output_ids"]
        with self.lock:
            if answer == self.wanted[index]:
                self.right += 1
            else:
                self.wrong.append(f"request {index} answered wrongly")

    def abort(self, turn: int) -> None:
        sampling = {"temperature": 0, "max_new_tokens": 300, "ignore_eos": True}
        events = self.server.stream("/generate", rid=f"abort-{turn}-", input_ids=[5, 6, 7], sampling_params=sampling)
        first = next(events)
        self.server.post("/abort_request", rid=f"abort-{turn}-")
        *_, last = (first, *events)
        reason = last["meta_info"]["finish_reason"]["type"]
        with self.lock:
            self.aborted += reason == "abort"
            self.too_late += reason == "length"  # it was faster than its abort
            if reason not in ("abort", "length"):
                self.wrong.append(f"abort ended with {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=420.0, help="of either mode")
    arguments = parser.parse_args()
    asked = requests(60)
    with tempfile.TemporaryDirectory() as folder:
        target, draft = save_pair(Path(folder))
        plain = Server(target, *LIMITS)
        try:
            wanted = plain.wait().all(asked)
        finally:
            plain.stop()
        steer = Path(folder) / "steer"
        write_whole(steer, "random")
        modes = {mode: serve(mode, (target, draft), steer, asked, wanted, arguments.seconds) for mode in MODES}
    result = {"command": "make soak", "modes": modes, "versions": versions(), "machine": machine()}
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if arguments.json is not None:
        write_whole(arguments.json, text)
    if any(of["wrong"] or of["hung_clients"] or of["slots_used_at_end"] for of in modes.values()):
        raise SystemExit(1)


def serve(
    mode: str, pair: tuple[Path, Path], steer: Path, asked: list[Any], wanted: list[list[int]], seconds: float
) -> dict[str, Any]:
    """A server in ``mode``, soaked."""
    config = steer.with_name(f"{mode}.json")
    config.write_text(json.dumps({"mode": mode}))
    server = Server(
        pair[0],
        *LIMITS,
        *("--speculative-algorithm", "SPECKV", "--speculative-draft-model-path", str(pair[1]), "--enable-metrics"),
        *("--speculative-adaptive-config", str(config)),
        environment={"SPECKV_TEST_STEER": str(steer)},
    )
    try:
        return soak(server.wait(), steer, asked, wanted, seconds)
    except OSError:
        print(server.tail(20_000))
        raise
    finally:
        server.stop()


def soak(server: Server, steer: Path, asked: list[Any], wanted: list[list[int]], seconds: float) -> dict[str, Any]:
    """Load the server; its decisions alternate between the real policy's and forced ones."""
    server.all(asked[:20])
    before = memory_mb(server.process.pid)
    soaking = Soak(server, asked, wanted, seconds)
    clients = [threading.Thread(target=soaking.client, args=(number,)) for number in range(CLIENTS)]
    start = time.monotonic()
    for client in clients:
        client.start()
    peak = before
    while any(client.is_alive() for client in clients) and time.monotonic() < soaking.end + 120:
        if server.process.poll() is not None:
            soaking.end = 0.0  # the clients give up, and what the log says is printed
            raise ConnectionError(f"the server ended with {server.process.returncode}")
        write_whole(steer, random.choice(("random", "real", "resting", "nan")))
        time.sleep(5)
        peak = max(peak, memory_mb(server.process.pid))
    hung = sum(client.is_alive() for client in clients)
    time.sleep(2)
    server.flush()
    time.sleep(1)
    load = server.get("/v1/loads")["loads"][0]
    return {
        "seconds": round(time.monotonic() - start),
        "requests": soaking.sent,
        "answered_as_plain": soaking.right,
        "aborted": soaking.aborted,
        "ended_before_their_abort": soaking.too_late,
        "hung_clients": hung,
        "wrong": soaking.wrong[:20],
        "slots_used_at_end": load["num_used_tokens"] + load["num_running_reqs"],
        "memory_mb": {"start": round(before), "peak": round(peak), "end": round(memory_mb(server.process.pid))},
    }


if __name__ == "__main__":
    main()

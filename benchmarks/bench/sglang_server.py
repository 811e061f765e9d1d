"""Starts the real SGLang server on a loopback port, talks to it, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

HOST = "127.0.0.1"
CPU_SETTINGS = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--disable-cuda-graph", "--mem-fraction-static", "0.5"),
)

CPU_ENVIRONMENT = {"SGLANG_USE_CPU_ENGINE": "1", "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1"}
"""Dynamo would take 11 s of each server's first round to compile SGLang's choice of the top k, a few operations."""


PORTS = range(20_000, 32_000)
"""Below those that systems give to connections: one of these would be somebody's before a server that takes 45 s to
start has bound it."""


def free_port() -> int:
    """Of ``PORTS``, one that nobody listens on; by chance, so that two who ask at the same time do not get the same."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port := random.choice(PORTS)))
            return port


class Server:
    """A running server; ``stop`` ends it and all its processes.

    Without a GPU it needs the environment that ``make test-sglang`` makes. The default is float32, since only there
    two batch shapes give the same tokens. ``threads`` are the scheduler's, None all cores; ``python`` is the
    interpreter that has SGLang.
    """

    def __init__(
        self,
        model: Path,
        *options: str,
        environment: dict[str, str] | None = None,
        port: int = 0,
        dtype: str = "float32",
        threads: int | None = 1,
        python: str = sys.executable,
    ) -> None:
        self.port = port or free_port()
        self.base = f"http://{HOST}:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="speckv-sglang-"))
        self.log = self.folder / "log"
        command = [python, "-W", "ignore", "-m", "sglang.launch_server", "--model-path", str(model)]
        settings = ["--dtype", dtype, "--host", HOST, "--port", str(self.port), "--skip-server-warmup", *options]
        if "--dp-size" not in options:
            # Of its own choice, two servers that start together may take the same port for their rendezvous. Replicas
            # have to choose: SGLang gives all of them the one that is named.
            settings += ["--nccl-port", str(free_port())]
        given = {**os.environ, "OMP_NUM_THREADS": str(threads or os.cpu_count() or 1), "TMPDIR": str(self.folder)}
        given |= {"SPECKV_CACHE": str(self.folder / "cache")}  # what one server learns of costs is not another's
        if not torch.cuda.is_available():
            settings += CPU_SETTINGS
            given |= CPU_ENVIRONMENT
        if "--grammar-backend" not in options:
            settings += ["--grammar-backend", "none"]
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*command, *settings],
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=self.folder,  # a stale speckv.egg-info in the checkout would hide the entry point
                start_new_session=True,
                env={**given, **(environment or {})},
            )

    def wait(self, seconds: float = 400.0) -> Server:
        """Until it serves; ends it and raises RuntimeError with the end of its log when it does not."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                if self.process.poll() is not None:
                    raise RuntimeError(f"server exited with {self.process.returncode}:\n{self.tail()}")
                try:
                    with urllib.request.urlopen(f"{self.base}/health", timeout=2):
                        return self
                except (urllib.error.URLError, OSError):
                    time.sleep(0.3)
            raise RuntimeError(f"server not up after {seconds:.0f} s:\n{self.tail()}")
        except BaseException:
            self.stop()
            raise

    def tail(self, characters: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-characters:]

    def pause(self) -> None:
        """Stop its processes where they are, so that they take no time of a processor; for ``resume``."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End the server's process group, which holds nothing but its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.base + path, timeout=60) as answer:
            body = answer.read().decode()
        return json.loads(body) if body.startswith(("[", "{")) else body

    def post(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            self.base + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith(("[", "{")) else text

    def flush(self) -> None:
        """Empty the prefix cache, once the last answer's request is gone from the scheduler."""
        self.post("/flush_cache?timeout=60")

    def stream(self, path: str, **body: Any) -> Any:
        """The events of a streamed answer, as they come."""
        request = urllib.request.Request(
            self.base + path, json.dumps({**body, "stream": True}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            for line in answer:
                if line.startswith(b"data:") and b"[DONE]" not in line:
                    yield json.loads(line[5:])

    def generate(self, ids: list[int], tokens: int, **more: Any) -> dict[str, Any]:
        """One greedy request by token ids, unless ``more`` says otherwise."""
        sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True, **more.pop("sampling", {})}
        answer: dict[str, Any] = self.post("/generate", input_ids=ids, sampling_params=sampling, **more)
        return answer

    def all(self, requests: list[tuple[list[int], int]], concurrency: int = 4) -> list[list[int]]:
        """Output ids of (prompt ids, tokens) requests, ``concurrency`` at a time."""
        with ThreadPoolExecutor(concurrency) as pool:
            answers = pool.map(lambda request: self.generate(*request)["output_ids"], requests)
            return list(answers)

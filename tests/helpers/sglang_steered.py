"""A server with SPECKV whose decisions a test may take over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from sglang_models import CONTEXT

from speckv.benchmarks.bench.sglang_server import Server
from speckv.controller.files import write_whole

LIMITS = (
    *("--context-length", str(CONTEXT), "--max-running-requests", "4", "--max-total-tokens", "2608"),
    "--sleep-on-idle",  # others that wait beside it leave it the cores
)

PLAIN = (*LIMITS, "--grammar-backend", "xgrammar", "--disable-overlap-schedule")
"""Of the server that is compared with: where scheduling is overlapped, SGLang's penalties lag a token behind."""


class Steered(Server):
    """A server with SPECKV whose decisions ``steer`` may take over: see ``speckv_sglang_cpu/policies.py``."""

    def __init__(
        self,
        pair: tuple[Path, Path],
        folder: Path,
        mode: str = "token",
        options: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        algorithm: str = "SPECKV",
        **more: Any,
    ) -> None:
        self.file = folder / "steer"
        self.steer("real")
        config = folder / "speckv.json"
        said: dict[str, Any] = {"max_gamma": 7, "log_every": 20, "mode": mode, "warm_up": 2}
        own = algorithm == "SPECKV"
        config.write_text(json.dumps(said if own else {"speckv": said}))
        model, draft = pair
        super().__init__(
            model,
            *LIMITS,
            *("--speculative-algorithm", algorithm, "--speculative-draft-model-path", str(draft)),
            *(() if own else ("--speculative-adaptive",)),
            *("--speculative-adaptive-config", str(config), "--enable-metrics", "--grammar-backend", "xgrammar"),
            # Prompts are read in several chunks, and slots are handed out several at a time.
            *("--chunked-prefill-size", "48", "--page-size", "16"),
            *options,
            environment={
                "SPECKV_TEST_STEER": str(self.file),
                "SPECKV_CACHE": str(model.parent / "cache"),
                **(environment or {}),
            },
            **more,
        )

    def steer(self, how: str) -> None:
        write_whole(self.file, how)

    def series(self, label: str = "") -> dict[str, float]:
        """Our Prometheus series by name, added up over all labels, or over those lines that have ``label``."""
        found: dict[str, float] = {}
        for line in self.get("/metrics").splitlines():
            if line.startswith("speckv:") and label in line:
                name = line.split("{")[0].removeprefix("speckv:")
                found[name] = found.get(name, 0.0) + float(line.split()[-1])
        return found


def told(infos: list[dict[str, Any]]) -> dict[str, float]:
    """What the answers say of their rounds, under the names of our series."""
    levels = sum(gamma or 0 for info in infos for gamma in info.get("speckv_gamma", ()))
    siblings = sum(sum(beside or ()) for info in infos for beside in info.get("speckv_siblings", ()))
    rounds = sum(info.get("spec_verify_ct", 0) for info in infos)
    accepted = sum(info.get("spec_num_correct_drafts", 0) for info in infos)
    return {
        "drafted_tokens_total": levels + siblings,
        "siblings_verified_total": siblings,
        "accepted_tokens_total": accepted,
        "verified_positions_total": rounds + levels + siblings,
    }


def speckv(folder: Path, *arguments: str) -> str:
    """What the command line prints, run in ``folder``."""
    command = [str(Path(sys.executable).with_name("speckv")), *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def bench(folder: Path, **urls: str) -> tuple[str, list[dict[str, Any]]]:
    """What `speckv bench --url` prints of servers by name, and the entries that it stores in ``r.json``."""
    prompts = [{"id": str(number), "task": "chat", "prompt": f"Say {number} words."} for number in range(4)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    named = [part for name, url in urls.items() for part in ("--url", f"{name}={url}")]
    settings = (
        "--prompts",
        "prompts.jsonl",
        "--count",
        "0",
        "--tokens",
        "24",
        "--concurrency",
        "1",
        "--concurrency",
        "4",
    )
    said = speckv(folder, "bench", "r.json", *named, *settings)
    return said, json.loads((folder / "r.json").read_text())["entries"]

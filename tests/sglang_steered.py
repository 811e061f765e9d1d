"""A server with SPECKV whose decisions a test may take over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sglang_models import CONTEXT

from speckv.benchmarks.bench.sglang_server import Server
from speckv.controller.files import write_whole

LIMITS = (
    *("--context-length", str(CONTEXT), "--max-running-requests", "4", "--max-total-tokens", "2608"),
    "--sleep-on-idle",  # others that wait beside it leave it the cores
)


class Steered(Server):
    """A server with SPECKV whose decisions ``steer`` may take over: see ``speckv_sglang_cpu/policies.py``."""

    def __init__(
        self,
        pair: tuple[Path, Path],
        folder: Path,
        mode: str = "token",
        options: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        self.file = folder / "steer"
        self.steer("real")
        config = folder / "speckv.json"
        config.write_text(json.dumps({"max_gamma": 7, "log_every": 20, "mode": mode, "warm_up": 2}))
        model, draft = pair
        super().__init__(
            model,
            *LIMITS,
            *("--speculative-algorithm", "SPECKV", "--speculative-draft-model-path", str(draft)),
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

    def series(self) -> dict[str, float]:
        """Our Prometheus series by name, those with a label of their own added up."""
        found: dict[str, float] = {}
        for line in self.get("/metrics").splitlines():
            if line.startswith("speckv:"):
                name = line.split("{")[0].removeprefix("speckv:")
                found[name] = found.get(name, 0.0) + float(line.split()[-1])
        return found

"""What every state that SGLang builds costs: time at start-up, and memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

MIB = 2**20


class Prebuilt:
    """``costs`` by state: (seconds, MiB) of building it; memory is the device's, on a CPU this process's."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self.costs: dict[str, tuple[float, float]] = {}

    @contextmanager
    def state(self, name: str) -> Iterator[None]:
        """Around the building of one."""
        memory, started = self._used(), time.perf_counter()
        yield
        self.costs[name] = (time.perf_counter() - started, self._used() - memory)

    def __str__(self) -> str:
        seconds, memory = (sum(cost[which] for cost in self.costs.values()) for which in (0, 1))
        each = ", ".join(f"{name}: {1e3 * s:.0f} ms {mib:.1f} MiB" for name, (s, mib) in self.costs.items())
        return f"{len(self.costs)} states built in {seconds:.2f} s and {memory:.1f} MiB ({each})"

    def _used(self) -> float:
        if self._cuda:
            free, total = torch.cuda.mem_get_info()
            return float(total - free) / MIB
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        except OSError:  # no Linux
            return 0.0
        return pages * resource.getpagesize() / MIB

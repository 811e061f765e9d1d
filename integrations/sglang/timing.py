"""How long the stages of a round took: the clock on a CPU, events on a GPU, which are read when they have passed."""

from __future__ import annotations

import time
from typing import Any

import torch


class Stopwatch:
    """Marks points in the stream of work of one device."""

    def __init__(self, device: str) -> None:
        self._events = device.startswith("cuda")

    def mark(self) -> Any:
        """A point in time, to be handed to ``ms``. Nothing waits for the device."""
        if not self._events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def ms(self, start: Any, end: Any) -> float | None:
        """Milliseconds between two marks; None where one was not made, or while the device has not reached it."""
        if start is None or end is None:
            return None
        if not self._events:
            return 1e3 * float(end - start)
        return float(start.elapsed_time(end)) if end.query() else None

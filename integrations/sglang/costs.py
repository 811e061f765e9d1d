"""What rounds take, from one start of a server to the next: timed at the first, learnt on and kept while serving."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from sglang.srt.runtime_context import get_parallel

from speckv.controller.curve import Costs
from speckv.controller.errors import SpecKVError
from speckv.controller.policy import Policy
from speckv.integrations.cost_store import costs_path, remember, remembered
from speckv.integrations.installed import processor, version
from speckv.integrations.sglang.owner import Owner
from speckv.integrations.sglang.ranks import Ranks
from speckv.integrations.sglang.warm_up import timed_costs

logger = logging.getLogger("speckv")

EVERY = 30.0
"""Seconds between two writes: SGLang ends its processes with a signal that nothing can be done upon."""


class KeptCosts:
    """Of a worker's pair on this machine; ``known`` is what its policy begins with. Rank 0 reads, times and writes."""

    def __init__(self, worker: Owner, ranks: Ranks, needed: bool, seconds: float | None) -> None:
        self._about = about(worker)
        self._writes = needed and ranks.decides
        self._written = time.monotonic()
        self.known = Costs.from_sizes(*(_bytes(runner.model) for runner in _runners(worker)))
        if not needed:
            return
        stored = self._stored() if ranks.decides else None
        if stored is not None:
            self.known = stored
        if ranks.agree(lambda: int(stored is None)):
            self._time(worker, ranks, seconds)

    def keep(self, policy: Policy) -> None:
        """Write what ``policy`` has learnt since, if that is some time ago."""
        if self._writes and time.monotonic() - self._written >= EVERY and (costs := policy.learnt()) is not None:
            self._write(costs)

    def _time(self, worker: Owner, ranks: Ranks, seconds: float | None) -> None:
        started = time.monotonic()
        try:
            timed = timed_costs(worker, ranks, seconds)
        except Exception as error:  # whatever a backend has against such a batch: it can still serve
            logger.warning("speckv: rounds could not be timed beforehand (%r); costs are learnt while serving", error)
            return
        if timed is not None:
            self.known = timed
            self._write(timed)
        sizes = [1, *timed.batches] if timed is not None else []
        logger.info("speckv: forwards of %s requests timed in %.1f s", sizes or "no", time.monotonic() - started)

    def _write(self, costs: Costs) -> None:
        if not self._writes:
            return
        self._written = time.monotonic()
        try:
            remember(self._about, costs)
        except SpecKVError as error:
            self._writes = False
            logger.warning("speckv: costs are not kept: %s", error)

    def _stored(self) -> Costs | None:
        try:
            found = remembered(self._about)
        except SpecKVError as error:
            logger.warning("speckv: costs are timed anew, since what is stored does not fit: %s", error)
            return None
        if found is not None:
            logger.info("speckv: costs as stored in %s", costs_path(self._about))
        return found


def about(worker: Owner) -> dict[str, Any]:
    """What costs depend on, for ``cost_store``."""
    target, draft = _runners(worker)
    on_gpu = worker.device.startswith("cuda")
    return {
        "framework": "sglang",
        "target": _model(target),
        "draft": _model(draft),
        "device": torch.cuda.get_device_name() if on_gpu else f"{worker.device} {processor()}",
        "threads": 0 if on_gpu else torch.get_num_threads(),
        "ranks": get_parallel().tp_size,
        "attention": type(target.attn_backend).__name__,
        "graphs": worker.draft_worker.captured,
        "versions": {name: version(name) or "" for name in ("torch", "sglang")},
    }


def _runners(worker: Owner) -> tuple[Any, Any]:
    return worker.target_worker.model_runner, worker.draft_worker.draft_runner


def _model(runner: Any) -> dict[str, Any]:
    config = runner.model_config
    return {
        "name": Path(config.model_path).name,
        "architecture": type(runner.model).__name__,
        "parameters": sum(parameter.numel() for parameter in runner.model.parameters()),
        "dtype": str(config.dtype).removeprefix("torch."),
        "quantization": config.quantization or "",
    }


def _bytes(model: Any) -> float:
    return float(sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()))

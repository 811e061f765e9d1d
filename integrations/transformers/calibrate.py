"""Time a pair's forwards on this machine, and say what the result depends on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from speckv.controller.curve import Costs
from speckv.controller.errors import SpecKVError
from speckv.integrations.installed import processor, version
from speckv.integrations.models.mirrored import Progress
from speckv.integrations.transformers.cache import new_cache
from speckv.integrations.transformers.direct import forward_of
from speckv.integrations.transformers.reach import positions

ROWS = (1, 2, 3, 4, 5, 7, 9, 13, 21)
"""Rows of a verify that are timed: dense where kernels have steps, up to a ceiling of 20 drafted tokens."""

DRAFTED = (1, 2, 64)
"""New tokens of a draft forward that are timed: from 1 and 2 alone it is not known what reading a prompt takes."""

BATCHES, OF_EACH = (4, 8), (1, 2, 4)
"""Batches that are timed besides, and so many rows of each of their sequences."""

SHORT, LONG = 64, 512
"""Tokens of context at which rows are timed, and at which one row is timed again to see what context adds."""

REPEATS = 5

_Forward = tuple[str, int, int, int]
"""Of which model, of how many sequences, their context, and rows of each."""

PACKAGES = ("torch", "transformers", "bitsandbytes")


def calibrate(
    target: PreTrainedModel, draft: PreTrainedModel, repeats: int = REPEATS, progress: Progress = lambda *_: None
) -> Costs:
    """Median forward times of ``repeats`` rounds; in a round every measurement has its turn, so drift favours none.

    Takes a hundred target forwards: seconds on an accelerator, a minute where a forward takes 200 ms.
    """
    plan: dict[_Forward, _Bench] = {}
    for name, model, timed in (("verify", target, ROWS), ("draft", draft, DRAFTED)):
        longest = positions(model)
        counts = tuple(rows for rows in timed if 2 * rows <= longest)
        if not counts:
            raise SpecKVError(f"{_model(model)['name']}: {longest} positions are too few to time anything")
        short = min(SHORT, longest - max(counts))
        of_each = tuple(rows for rows in (OF_EACH if name == "verify" else (1,)) if rows <= max(counts))
        sizes = [(size, short, of_each) for size in BATCHES]
        for size, context, these in ((1, short, counts), (1, LONG, (1,)), *sizes):
            if context + max(these) <= longest:
                bench = _Bench(model, size, context, all_rows=name == "verify")
                plan |= {(name, size, context, rows): bench for rows in these}
    times: dict[_Forward, list[float]] = {key: [] for key in plan}
    for number in range(-1, repeats):  # the first time kernels are chosen and memory is taken
        for key, bench in plan.items():
            taken = bench.time(key[-1])
            if number >= 0:
                times[key].append(taken)
        progress("calibrate", number + 1, repeats)
    found = {key: median(values) for key, values in times.items()}
    slope = {name: _slope(found, name) for name in ("verify", "draft")}
    tables: dict[int, dict[str, dict[int, float]]] = {size: {"verify": {}, "draft": {}} for size in (1, *BATCHES)}
    for (name, size, context, rows), ms in found.items():
        if context != LONG:
            # Of a batch, too, at least half is not its context, whose slope is that of one sequence.
            tables[size][name][size * rows] = max(0.5 * ms, ms - slope[name] * size * context / 1e3)
    one, *batches = (Costs(of["draft"], of["verify"]) for of in tables.values())
    of_batches = dict(zip(BATCHES, batches, strict=True))
    return Costs(one.draft, one.verify, slope["draft"], slope["verify"], of_batches)


def _slope(found: dict[_Forward, float], name: str) -> float:
    """What 1,000 tokens of context add to a forward of one row, in ms; 0 where that is lost in the noise."""
    if (name, 1, LONG, 1) not in found:
        return 0.0
    slope = (found[name, 1, LONG, 1] - found[name, 1, SHORT, 1]) * 1e3 / (LONG - SHORT)
    # Where noise makes it steep, at least half of a forward is not its context.
    least = min(ms for (of, size, context, _), ms in found.items() if (of, size, context) == (name, 1, SHORT))
    return min(max(0.0, slope), 0.5 * least * 1e3 / SHORT)


class _Bench:
    """A model with ``context`` tokens of ``size`` sequences in its cache, ready to time forwards over what follows.

    ``all_rows``: whether every new position's logits are asked for, as of a target, or the last's, as of a draft.
    """

    def __init__(self, model: PreTrainedModel, size: int, context: int, all_rows: bool) -> None:
        self.model, self.forward, self.size, self.all_rows = model, forward_of(model), size, all_rows
        self.kept = new_cache(model)
        self.cache = next(iter(self.kept.values()))
        with torch.inference_mode():
            self._forward(context)

    @torch.inference_mode()
    def time(self, rows: int) -> float:
        """Milliseconds for ``rows`` new positions of each sequence, their chosen tokens' way to the host included."""
        self._wait()
        started = perf_counter()
        self._forward(rows).argmax(-1).tolist()
        taken = (perf_counter() - started) * 1e3
        self.cache.crop(-rows)
        return taken

    def _forward(self, count: int) -> Tensor:
        ids = torch.arange(5, 5 + count, device=self.model.device) % self.model.config.get_text_config().vocab_size
        ids = ids.expand(self.size, -1)
        inputs = {"input_ids": ids, "use_cache": True, **self.kept}
        return self.forward(inputs, count if self.all_rows else 1)[0]

    def _wait(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)


def about(target: PreTrainedModel, draft: PreTrainedModel) -> dict[str, Any]:
    """What costs depend on, for ``cost_store``: models, precisions, device, threads, versions."""
    return {
        "target": _model(target),
        "draft": _model(draft),
        "device": _device(target),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) or "" for name in PACKAGES},
    }


def _model(model: PreTrainedModel) -> dict[str, Any]:
    quantization = getattr(model.config, "quantization_config", None)
    settings: Sequence[tuple[str, Any]] = ()
    if quantization is not None:
        given = quantization if isinstance(quantization, dict) else quantization.to_dict()
        settings = sorted((key, str(value)) for key, value in given.items())
    return {
        "name": Path(model.config.name_or_path or "unnamed").name,
        "architecture": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": [list(pair) for pair in settings],
    }


def _device(model: PreTrainedModel) -> str:
    if model.device.type == "cuda":
        return str(torch.cuda.get_device_name(model.device))
    return f"{model.device.type} {platform.machine()} {processor()}"

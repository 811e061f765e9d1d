"""`python -m speckv.benchmarks.gpu`: everything that only a machine with a GPU can tell, in one command.

It needs no network and no weights: models are made on the device. On a CPU small ones show that it runs. Every row is
in the file before the next is measured, and a run that was stopped goes on with the part that it was in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from speckv.benchmarks.collect.traces import read_traces
from speckv.benchmarks.common.command import JsonFile, make_app, show_and_store
from speckv.benchmarks.common.command import run as run_command
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.common.progress import progress
from speckv.benchmarks.gpu.costs import TRACE, by_mask, curve, regime
from speckv.benchmarks.gpu.exactness import SEQUENCES, check, synchronisations
from speckv.benchmarks.gpu.figures import is_exact
from speckv.benchmarks.gpu.models import make
from speckv.benchmarks.gpu.pairs import timed
from speckv.benchmarks.replay.cell import judge, play_cell
from speckv.benchmarks.replay.positions import Positions
from speckv.benchmarks.replay.regimes import TRACES
from speckv.controller.errors import SpecKVError
from speckv.controller.files import write_whole

Plan = dict[str, Any]
Row = dict[str, Any]

LARGE: Plan = {
    "draft": "1b",
    "target": "8b",
    "batches": (1, 4, 16, 64),
    "draft_tokens": (1, 2, 8),
    "tokens": (1, 2, 4, 8, 16, 32, 64),
    "contexts": (128, 1000, 4000),
    "sequences": SEQUENCES,
    "pair": ("8b", (0.05, 0.15), (1, 8), 4, 48),
    "texts": None,
}
SMALL: Plan = {
    "draft": "tiny",
    "target": "small",
    "batches": (1, 2),
    "draft_tokens": (1, 2),
    "tokens": (1, 2, 8),
    "contexts": (32, 64),
    "sequences": 512,
    "pair": ("small", (0.15,), (1, 2), 2, 24),
    "texts": 4,
}
REPLAYED = ("plain", "speckv", "speckv-chain", "speckv-step", "speckv-step-chain")

app = make_app()


@app.command()
def gpu(
    json_file: JsonFile = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:1, cpu; the first GPU if there is one.")] = "",
    traces: Annotated[Path, typer.Option(help="The folder of the trace files.")] = TRACES,
) -> None:
    """Exactness in float32, synchronisations, what forwards take, a pair end to end, the replay under these costs."""
    where = _device(device)
    trace = traces / f"{TRACE}.parquet"
    if not trace.exists():
        raise SpecKVError(f"{trace}: no such file; run this in the root of a clone, or name the folder with --traces")
    plan = LARGE if where.type == "cuda" else SMALL
    on = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    begun: dict[str, Any] = {"command": " ".join(["python -m speckv.benchmarks.gpu", *sys.argv[1:]]), "device": on}
    begun |= {"plan": plan, "versions": versions(), "machine": machine(), "done": []}
    result = _gone_on_with(json.loads(json.dumps(begun)), json_file)
    with progress() as report:
        for name, part in PARTS.items():
            if name in result["done"]:
                continue
            report(name.replace("_", " "), 0, 1)
            result[name] = []
            for row in part(where, plan, result, trace):
                result[name].append(row)
                _store(result, json_file)
            result["done"].append(name)
            _store(result, json_file)
            report(name.replace("_", " "), 1, 1)
    show_and_store(result, json_file)
    wrong = [row for row in result["exactness"] if not is_exact(row)]
    if wrong:
        raise SpecKVError(f"{len(wrong)} ways of decoding are not the target's own, the first of them {wrong[0]}")


def _device(named: str) -> torch.device:
    try:
        found = torch.device(named or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise SpecKVError(f"--device {named}: no such device; say cpu, cuda or cuda:1") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise SpecKVError(f"--device {named}: torch finds no CUDA device here; see `speckv doctor`, or say cpu")
    return found


def _store(result: Row, json_file: Path | None) -> None:
    if json_file is not None:
        write_whole(json_file, json.dumps(result, indent=1) + "\n")


def _gone_on_with(begun: dict[str, Any], json_file: Path | None) -> dict[str, Any]:
    """What the file has of the same measurement; raises SpecKVError where it is of something else."""
    if json_file is None or not json_file.exists():
        return begun
    try:
        found = json.loads(json_file.read_text())
        same = all(found[key] == begun[key] for key in ("device", "plan", "versions"))
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise SpecKVError(f"{json_file}: is not of this device and these versions; name another file, or delete it")
    return dict(found)


def _exactness(where: torch.device, plan: Plan, *_: Any) -> Iterator[Row]:
    return check(where, plan["sequences"])


def _synchronisations(where: torch.device, *_: Any) -> Iterator[Row]:
    for batch in (1, 8):
        yield {"batch": batch} | synchronisations(where, batch)


def _draft(where: torch.device, plan: Plan, *_: Any) -> Iterator[Row]:
    model = make(plan["draft"], where, torch.bfloat16)
    return curve(model, plan["batches"], plan["draft_tokens"], plan["contexts"])


def _target(where: torch.device, plan: Plan, *_: Any) -> Iterator[Row]:
    model = make(plan["target"], where, torch.bfloat16)
    return curve(model, plan["batches"], plan["tokens"], plan["contexts"])


def _masks(where: torch.device, plan: Plan, *_: Any) -> Iterator[Row]:
    return by_mask(make(plan["target"], where, torch.bfloat16), plan["contexts"][0])


def _end_to_end(where: torch.device, plan: Plan, *_: Any) -> Iterator[Row]:
    size, further, *rest = plan["pair"]
    for much in further:
        yield from timed(size, where, much, *rest)


def _replay(_: torch.device, plan: Plan, result: Row, trace: Path) -> Iterator[Row]:
    found, facts = read_traces(trace)
    positions = Positions(found[: plan["texts"]], facts["tokens"])
    context = plan["contexts"][len(plan["contexts"]) // 2]
    for batch in plan["batches"]:
        measured = regime("here", result["draft"], result["target"], batch, context)
        if measured is not None:
            judged = judge(play_cell(measured, positions, batch, "default", REPLAYED), positions.tasks, batch)
            yield from (row for row in judged if row["task"] == "all" and row["policy"] in REPLAYED)


PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "exactness": _exactness,
    "synchronisations": _synchronisations,
    "draft": _draft,
    "target": _target,
    "masks": _masks,
    "end_to_end": _end_to_end,
    "replay": _replay,
}
"""What is measured, in this order; each is given the device, the plan, what is known and the trace."""


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()

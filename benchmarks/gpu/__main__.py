"""`python -m speckv.benchmarks.gpu`: everything that only a machine with a GPU can tell, in one command.

It needs no network and no weights: models are made on the device. On a CPU small ones show that it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from speckv.benchmarks.command import run as run_command
from speckv.benchmarks.command import show_and_store
from speckv.benchmarks.gpu.costs import TRACE, curve, regime
from speckv.benchmarks.gpu.exactness import SEQUENCES, check, synchronisations
from speckv.benchmarks.gpu.models import make
from speckv.benchmarks.machine import machine, versions
from speckv.benchmarks.progress import progress
from speckv.benchmarks.replay.cell import judge, play_cell
from speckv.benchmarks.replay.positions import Positions
from speckv.benchmarks.replay.regimes import TRACES
from speckv.benchmarks.traces import read_traces
from speckv.controller.errors import SpecKVError

LARGE: dict[str, Any] = {
    "draft": "1b",
    "target": "8b",
    "batches": (1, 4, 16, 64),
    "draft_tokens": (1, 2, 8),
    "tokens": (1, 2, 4, 8, 16, 32, 64),
    "contexts": (128, 1000, 4000),
    "sequences": SEQUENCES,
    "texts": None,
}
SMALL: dict[str, Any] = {
    "draft": "tiny",
    "target": "small",
    "batches": (1, 2),
    "draft_tokens": (1, 2),
    "tokens": (1, 2, 8),
    "contexts": (32, 64),
    "sequences": 512,
    "texts": 4,
}
REPLAYED = ("plain", "speckv", "speckv-chain", "speckv-step", "speckv-step-chain")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def gpu(
    json_file: Annotated[Path | None, typer.Option("--json", help="Store everything in this file.")] = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:1, cpu; the first GPU if there is one.")] = "",
    traces: Annotated[Path, typer.Option(help="The folder of the trace files.")] = TRACES,
) -> None:
    """Exactness in float32, synchronisations a drafted token, what forwards take, and the replay under these costs."""
    where = _device(device)
    trace = traces / f"{TRACE}.parquet"
    if not trace.exists():
        raise SpecKVError(f"{trace}: no such file; run this in the root of a clone, or name the folder with --traces")
    plan = LARGE if where.type == "cuda" else SMALL
    result: dict[str, Any] = {"command": " ".join(["python -m speckv.benchmarks.gpu", *sys.argv[1:]])}
    result |= {"device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu", "plan": plan}
    with progress() as report:
        report("exactness", 0, 4)
        result["exactness"] = list(check(where, plan["sequences"]))
        report("synchronisations", 1, 4)
        result["synchronisations_per_drafted_token"] = synchronisations(where)
        for number, (role, tokens) in enumerate((("draft", "draft_tokens"), ("target", "tokens"))):
            report(f"what the {role}'s forwards take", 2 + number, 4)
            model = make(plan[role], where, torch.bfloat16)
            result[role] = list(curve(model, plan["batches"], plan[tokens], plan["contexts"]))
            del model
        report("replay", 4, 4)
        result["replay"] = _replay(result, plan, trace)
    show_and_store(result | {"versions": versions(), "machine": machine()}, json_file)
    wrong = [row for row in result["exactness"] if not row.get("identical", row.get("p_value", 0.0) > 1e-3)]
    if wrong:
        raise SpecKVError(f"{len(wrong)} ways of decoding are not the target's own, the first of them {wrong[0]}")


def _device(named: str) -> torch.device:
    found = torch.device(named or ("cuda" if torch.cuda.is_available() else "cpu"))
    if found.type == "cuda" and not torch.cuda.is_available():
        raise SpecKVError(f"--device {named}: torch finds no CUDA device here; see `speckv doctor`, or say cpu")
    return found


def _replay(result: dict[str, Any], plan: dict[str, Any], trace: Path) -> list[dict[str, Any]]:
    found, facts = read_traces(trace)
    positions = Positions(found[: plan["texts"]], facts["tokens"])
    rows = []
    context = plan["contexts"][len(plan["contexts"]) // 2]
    for batch in plan["batches"]:
        measured = regime("here", result["draft"], result["target"], batch, context)
        if measured is not None:
            judged = judge(play_cell(measured, positions, batch, "default"), positions.tasks, batch)
            rows += [row for row in judged if row["task"] == "all" and row["policy"] in REPLAYED]
    return rows


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()

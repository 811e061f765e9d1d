"""`python -m speckv.benchmarks.replay`: every policy in every cost regime and batch, exactly, on recorded traces."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import typer

from speckv.benchmarks.collect.traces import read_traces
from speckv.benchmarks.common.command import JsonFile, make_app
from speckv.benchmarks.common.command import run as run_command
from speckv.benchmarks.common.journal import Journal
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.common.progress import progress
from speckv.benchmarks.replay.cell import judge, play_cell
from speckv.benchmarks.replay.figures import plot, table
from speckv.benchmarks.replay.positions import Positions
from speckv.benchmarks.replay.regimes import REGIMES, TRACES, Regime, Roofline, load_regimes
from speckv.controller.errors import SpecKVError
from speckv.controller.files import write_whole
from speckv.integrations.runtime import Controller

BATCHES = (1, 4, 8)
MODELLED_BATCHES = (1, 4, 16, 64, 256)

app = make_app()


@lru_cache(maxsize=4)
def _positions(path: Path) -> Positions:
    traces, facts = read_traces(path)
    return Positions(traces, facts["tokens"])


def _cell(regime: Regime, batch: int, traces: Path, controller: str) -> list[dict[str, Any]]:
    positions = _positions(traces / f"{regime.trace}.parquet")
    rows = judge(play_cell(regime, positions, batch, controller), positions.tasks, batch)
    return [{"regime": regime.name, **row} for row in rows]


def cells(regimes: list[Regime], batches: list[int] | None) -> Iterator[tuple[Regime, int]]:
    """What is to be played; the largest batches first, which are over soonest."""
    for regime in regimes:
        own = MODELLED_BATCHES if isinstance(regime.verify, Roofline) else BATCHES
        yield from ((regime, batch) for batch in reversed(own) if batches is None or batch in batches)


@app.command()
def replay(
    json_file: JsonFile = None,
    regimes: Annotated[Path, typer.Option(help="The cost regimes.")] = REGIMES,
    only: Annotated[str, typer.Option(help="Comma-separated names of regimes; all when left out.")] = "",
    batch: Annotated[str, typer.Option(help="Comma-separated batch sizes; all when left out.")] = "",
    traces: Annotated[Path, typer.Option(help="The folder of the trace files.")] = TRACES,
    controller: Annotated[str, typer.Option(help="default, or the path of an .onnx artefact.")] = "default",
    processes: Annotated[int, typer.Option(help="Cells played at the same time.", min=1)] = 2,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw the ratios to this PNG or SVG.")] = None,
) -> None:
    """Replay fixed γ, static trees, the peers, the paper's policy, ours and the clairvoyant bounds, and compare them.

    With --json it can be stopped at any time and goes on where it was: what is done is kept beside that file.
    """
    chosen = load_regimes(regimes)
    names = [name.strip() for name in only.split(",")] if only else list(chosen)
    if unknown := [name for name in names if name not in chosen]:
        raise SpecKVError(f"--only {unknown[0]}: {regimes} has {', '.join(chosen)}")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in batch.split(",") if batch):
        raise SpecKVError(f"--batch {batch}: give sizes of 1 or more, as 1,4,8")
    if plot_file is not None and plot_file.suffix not in (".png", ".svg"):
        raise SpecKVError(f"--plot {plot_file}: name a .png or an .svg file")
    if missing := [f for name in names if not (f := traces / f"{chosen[name].trace}.parquet").exists()]:
        raise SpecKVError(f"{missing[0]}: no such file; record it with `speckv trace`, or name its folder by --traces")
    sizes = [int(size) for size in batch.split(",")] if batch else None
    wanted = list(cells([chosen[name] for name in names], sizes))
    facts = {chosen[name].trace: read_traces(traces / f"{chosen[name].trace}.parquet")[1] for name in names}
    setting: dict[str, Any] = {"traces": facts, "regimes": json.loads(regimes.read_text(encoding="utf-8"))}
    setting |= {"versions": versions(), "controller": Controller.load(controller).artefact.sha256}
    journal = Journal(json_file.with_suffix(".partial.jsonl")) if json_file else None
    kept = [line for line in journal.read() if line["setting"] == setting] if journal else []
    done: dict[tuple[str, int], list[dict[str, Any]]] = {(line["regime"], line["batch"]): line["rows"] for line in kept}
    with progress() as report, ProcessPoolExecutor(processes) as pool:
        todo = {pool.submit(_cell, r, b, traces, controller): (r.name, b) for r, b in wanted if (r.name, b) not in done}
        report("replay", len(wanted) - len(todo), len(wanted))
        for future in as_completed(todo):
            regime, size = todo[future]
            done[regime, size] = future.result()
            if journal:
                journal.append({"setting": setting, "regime": regime, "batch": size, "rows": done[regime, size]})
            report("replay", sum((r.name, b) in done for r, b in wanted), len(wanted))
    found = [row for regime, size in sorted(wanted, key=lambda cell: cell[1]) for row in done[regime.name, size]]
    for size in sorted({size for _, size in wanted}):
        table([row for row in found if row["batch"] == size], size).show()
    if json_file is not None and journal is not None:
        result = {"command": " ".join(["python -m speckv.benchmarks.replay", *sys.argv[1:]]), "rows": found}
        write_whole(json_file, json.dumps(result | setting | {"machine": machine()}, indent=1) + "\n")
        journal.path.unlink(missing_ok=True)
    if plot_file is not None:
        plot(found, plot_file)


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()

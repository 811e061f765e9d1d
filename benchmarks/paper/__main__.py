"""`python -m speckv.benchmarks.paper`: the paper's evaluation on its own data, reproduced and examined."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from speckv.benchmarks.common.command import JsonFile, make_app
from speckv.benchmarks.common.command import run as run_command
from speckv.benchmarks.common.machine import machine, versions
from speckv.benchmarks.paper.data import Release, read_release
from speckv.controller.errors import SpecKVError
from speckv.controller.extras import require
from speckv.controller.files import write_whole

VARIABLE = "SPECKV_PAPER_DATA"
app = make_app()


def run(folder: Path, examine: bool = False) -> dict[str, Any]:
    """Reproduce (and examine) the evaluation on the data in ``folder``; what the command stores, JSON-able.

    ``table1`` and ``table2`` are rows with the released files' own columns; ``decision_us`` is by predictor;
    ``published`` holds what the figures are compared with.
    """
    require("sklearn")
    from speckv.benchmarks.paper.examination import examine as examine_release
    from speckv.benchmarks.paper.phase3 import reproduce_phase3
    from speckv.benchmarks.paper.reproduction import reproduce

    begin = time.perf_counter()
    release = read_release(folder)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    result = reproduce(release)
    phase3 = reproduce_phase3(release)
    cells = phase3.pop("policies")
    phase3["largest_difference_of_48_cells"] = _largest_difference(release, cells)
    result["phase3"] = phase3
    if examine:
        result["examination"] = examine_release(release)
    result["published"] = {
        name: table for name, table in release.published.items() if name != "phase3_policy_comparison"
    }
    steps = (folder / "phase2_step_results.csv").read_bytes()
    return {
        "command": "python -m speckv.benchmarks.paper --data DIR" + " --examine" * examine,
        "data": {"phase2_step_results.csv": hashlib.sha256(steps).hexdigest()},
        "versions": versions(),
        "machine": machine() | {"load_1min": load},  # decision times mean little on a busy machine
        "seconds": round(time.perf_counter() - begin, 1),
        **result,
    }


def _largest_difference(release: Release, cells: list[dict[str, Any]]) -> float:
    published = {
        (cell["policy"], cell["compression"], cell["task"]): cell["mean_expected_tokens"]
        for cell in release.published["phase3_policy_comparison"]
    }
    return max(
        abs(float(cell["mean_expected_tokens"] - published[cell["policy"], cell["compression"], cell["task"]]))
        for cell in cells
    )


@app.command()
def paper(
    data: Annotated[Path | None, typer.Option(envvar=VARIABLE, help="Folder of the released data.")] = None,
    json_file: JsonFile = None,
    examine: Annotated[bool, typer.Option("--examine", help="Also what a reader must know of them.")] = False,
    page: Annotated[Path | None, typer.Option(help="Fill the tables of this Markdown page (docs/paper.md).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the examination into this .png or .svg file.")] = None,
) -> None:
    """Train and evaluate as the paper's release does, and show every figure beside the published one."""
    from speckv.benchmarks.common.tables import fill_page
    from speckv.benchmarks.paper.plot import draw
    from speckv.benchmarks.paper.report import tables

    if data is None:
        raise SpecKVError(f"the folder of the released data is not known; give it by --data or {VARIABLE}")
    if plot is not None and not examine:
        raise SpecKVError("--plot draws the examination; add --examine")
    text = None
    if page is not None:
        if not page.is_file():
            raise SpecKVError(f"{page}: no such page; --page fills the tables of an existing one")
        text = page.read_text(encoding="utf-8")
    result = run(data, examine)
    made = tables(result)
    for table in made.values():
        table.show()
    difference = result["phase3"]["largest_difference_of_48_cells"]
    typer.echo(f"Largest difference of phase 3's 48 policy cells: {difference:.4f} tokens per step")
    if json_file is not None:
        write_whole(json_file, json.dumps(result, indent=1, allow_nan=False) + "\n")
    if text is not None and page is not None:
        write_whole(page, fill_page(text, made))
    if plot is not None:
        draw(result, plot)


def main() -> None:
    """Run the command."""
    run_command(app)


if __name__ == "__main__":
    main()

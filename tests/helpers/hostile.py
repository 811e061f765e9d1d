"""The hostile set: files that must be refused, made the same way every time, and the process that tries to load them.

``python hostile.py LIST`` reads a JSON list of paths, loads each as a controller under a limit of memory, and prints
what came of it: one JSON object per path.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MEMORY = 200 << 20
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = re.compile(
    r"^(os\.(?!listdir|scandir|putenv)|subprocess|pickle|socket|ctypes|shutil|marshal|urllib|webbrowser)"
)
"""Audit events of which loading a refused file may raise none."""


def make(folder: Path, network: bytes, forest: bytes, weights: bytes) -> list[Path]:
    """Write the set into ``folder``, from a good network, a good forest and good published weights."""
    import hostile_files
    import hostile_graphs
    import hostile_weights

    contents: dict[str, bytes] = {}
    sources: tuple[Iterator[tuple[str, bytes]], ...] = (
        hostile_graphs.broken(network),
        hostile_graphs.altered(network),
        hostile_graphs.described(network),
        hostile_graphs.forests(forest),
        hostile_graphs.bombs(network),
        hostile_weights.archives(weights),
        hostile_weights.pickles(folder / "executed"),
    )
    for source in sources:
        for name, content in source:
            assert name not in contents, name
            contents[name] = content
    paths = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        paths.append(folder / name)
    paths += [*hostile_files.special(folder, network), *hostile_files.folders(folder, weights)]
    assert len(set(paths)) == len(paths)
    return paths


def attempt(load: Callable[[Path], Any], path: Path, events: list[str]) -> dict[str, Any]:
    """Load ``path``: how it ended, its text, how long it took, and what was done on the way."""
    del events[:]
    begin = time.process_time(), time.perf_counter()
    try:
        controller = load(path)
        end, text = "loaded", ""
        for level in range(3):
            rates = controller.acceptance_rates((1.0, 0.5, 3.0, 0.1), level, (0, 2, 8, 20))
            if not ((rates >= 0) & (rates <= 1)).all():
                end = "loaded, but gives no probabilities"
    except Exception as error:
        end, text = type(error).__name__, str(error)
    took = {"cpu_s": time.process_time() - begin[0], "wall_s": time.perf_counter() - begin[1]}
    return {"path": str(path), "end": end, "text": text, "events": sorted(set(events)), **took}


def main() -> None:
    """See the module's docstring."""
    from speckv.integrations.runtime import Controller

    paths = [Path(path) for path in json.loads(Path(sys.argv[1]).read_text())]
    for good in paths[:2]:  # brings in all that is imported late, before memory is counted
        Controller.load(good)
    status = Path("/proc/self/status").read_text()
    used = int(re.search(r"VmSize:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    events: list[str] = []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and (isinstance(arguments[2], int) and arguments[2] & WRITING)
        if writes or FORBIDDEN.match(event):
            events.append(event)

    sys.addaudithook(audit)
    for path in paths:
        print(json.dumps(attempt(Controller.load, path, events)))


if __name__ == "__main__":
    main()

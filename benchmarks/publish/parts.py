"""What the sections of pages are put together from: stored results, tables and lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speckv.benchmarks.common.tables import Table

Result = dict[str, Any]


def read(path: Path) -> Result:
    content: Result = json.loads(path.read_text(encoding="utf-8"))
    return content


def introduced(intro: str, made: Table) -> str:
    return f"{intro}\n\n{made.markdown().rstrip()}"


def listing(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of words: aligned left, where :class:`Table` has figures."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))


def of_machine(machine: Result) -> str:
    return str(machine.get("device") or f"{machine['cores']} CPU cores ({machine['formats'].split()[-1]})")

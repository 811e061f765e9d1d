"""Finished work on disk, from which a killed run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

from speckv.controller.errors import SpecKVError
from speckv.controller.records import Row


class Journal:
    """An append-only JSON-lines file of finished work, so that a killed run resumes after the last entry."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Row]:
        """All whole entries; a last line that was cut by a kill is dropped, from the file too."""
        if not self.path.exists():
            return []
        entries = []
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("cut")
                entries.append(json.loads(line))
            except ValueError:
                if number < len(lines):
                    where = f"{self.path}: line {number}"
                    raise SpecKVError(f"{where} is damaged; delete the file to start over") from None
                os.truncate(self.path, sum(map(len, lines[:-1])))
        return entries

    def append(self, entry: Row) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            stream.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

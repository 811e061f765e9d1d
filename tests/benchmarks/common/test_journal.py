"""The journal of a long run: what survives a kill, and what is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from speckv.benchmarks.common.journal import Journal
from speckv.controller.errors import SpecKVError
from speckv.controller.records import Row


def journal_of(path: Path, entries: list[Row]) -> Journal:
    journal = Journal(path)
    for entry in entries:
        journal.append(entry)
    return journal


ENTRIES: list[Row] = [{"number": number, "text": "γ\n\u2028" * number} for number in range(4)]


def test_journal_gives_back_what_was_appended(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none.jsonl").read() == []
    journal = journal_of(tmp_path / "deep" / "work.jsonl", ENTRIES)
    assert journal.read() == ENTRIES == Journal(journal.path).read()


def test_journal_drops_a_torn_last_line_and_goes_on_after_it(tmp_path: Path) -> None:
    whole = journal_of(tmp_path / "whole.jsonl", ENTRIES).path.read_bytes()
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    torn = tmp_path / "torn.jsonl"
    for length in range(start + 1, len(whole)):  # the last cut lacks nothing but the newline
        torn.write_bytes(whole[:length])
        journal = Journal(torn)
        assert journal.read() == ENTRIES[:-1]
        assert torn.read_bytes() == whole[:start]
        journal.append({"number": 9})
        assert journal.read() == [*ENTRIES[:-1], {"number": 9}]


@pytest.mark.parametrize("damage", [b'{"number": 1, "te\n', b"\x00\x00\n", b"\xff\n", b"\n"])
def test_journal_refuses_damage_in_the_middle(tmp_path: Path, damage: bytes) -> None:
    path = journal_of(tmp_path / "work.jsonl", ENTRIES).path
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = damage
    path.write_bytes(b"".join(lines))
    with pytest.raises(SpecKVError) as refusal:
        Journal(path).read()
    assert str(refusal.value) == f"{path}: line 2 is damaged; delete the file to start over"
    assert path.read_bytes() == b"".join(lines)


WRITER = """
import sys
from pathlib import Path
from speckv.benchmarks.common.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**6):
    journal.append({"number": number, "padding": "x" * 300_000})
    print(number, flush=True)
"""


def test_kill_9_loses_at_most_the_entry_in_progress(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    kept = 0
    for more in (1, 4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(kept)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            said = [int(writer.stdout.readline()) for _ in range(more)][-1]
            writer.send_signal(signal.SIGKILL)
            said = max([said, *(int(line) for line in writer.stdout)])
        numbers = [entry["number"] for entry in Journal(path).read()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) - 1 in (said, said + 1)  # what was in progress may have become whole
        kept = len(numbers)

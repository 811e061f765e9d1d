"""What is installed and what processor this is: the facts that measurements depend on."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


def version(package: str) -> str | None:
    """The installed version of ``package``, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def allowed() -> dict[str, SpecifierSet]:
    """The range of versions that this package asks for, by the name of each package that it or an extra needs."""
    ranges: dict[str, SpecifierSet] = {}
    for line in importlib.metadata.requires("speckv") or []:
        wanted = Requirement(line)
        if wanted.name != "speckv":
            ranges[wanted.name] = ranges.get(wanted.name, SpecifierSet()) & wanted.specifier
    return ranges


def cpu_info() -> dict[str, str]:
    """The fields of Linux's /proc/cpuinfo (of the last core), empty elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def processor() -> str:
    """The processor's name."""
    return cpu_info().get("model name") or platform.processor()

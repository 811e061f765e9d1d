"""What is installed and what processor this is: the facts that measurements depend on."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path


def version(package: str) -> str | None:
    """The installed version of ``package``, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_info() -> dict[str, str]:
    """The fields of Linux's /proc/cpuinfo (of the last core), empty elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def processor() -> str:
    """The processor's name."""
    return cpu_info().get("model name") or platform.processor()

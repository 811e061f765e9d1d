"""What a measurement was made on and with: versions and machine, stored beside every result."""

from __future__ import annotations

import os
import platform

from speckv.integrations.installed import cpu_info, processor, version

PACKAGES = (
    "speckv",
    "torch",
    "transformers",
    "sglang",
    "bitsandbytes",
    "numpy",
    "scikit-learn",
    "onnx",
    "onnxruntime",
    "skl2onnx",
)


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that matter; absent ones are left out."""
    found = {package: version(package) for package in PACKAGES}
    return {"python": platform.python_version()} | {name: at for name, at in found.items() if at is not None}


def machine() -> dict[str, str | int]:
    """Processor name, the number formats it computes in, cores and system."""
    flags = cpu_info().get("flags", "").split()
    formats = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if flag in flags]
    return {
        "cpu": processor(),
        "formats": " ".join(formats),
        "cores": os.cpu_count() or 0,
        "system": platform.system(),
    }


def lacks_bf16() -> bool:
    """Whether this machine's CPU is known to have no instructions for bfloat16, which torch then multiplies slowly."""
    formats = str(machine()["formats"]).split()
    return "avx2" in formats and not {"avx512_bf16", "amx_bf16"} & set(formats)

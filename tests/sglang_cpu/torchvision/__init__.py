"""Import-only stand-in: the index's torchvision is built for CUDA and does not import beside a CPU torch."""

from typing import Any

from . import io, transforms

__version__ = "0.0.0+standin"
__all__ = ["io", "transforms"]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"torchvision stand-in: {name}")

    return missing

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name == "InterpolationMode":
        from .. import InterpolationMode

        return InterpolationMode

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"torchvision stand-in: {name}")

    return missing

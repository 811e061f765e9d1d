"""Import-only stand-in for triton, whose wheel is a GPU compiler of a gigabyte.

SGLang imports triton at module level nearly everywhere. Kernels may be defined with this; launching one raises, so
that a path which needs a GPU is loud.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any

__version__ = "3.0.0"


class _Anything:
    """Takes every attribute access, call and subscript that defining a kernel needs."""

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(f"{self._name}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType):
            return args[0]  # used as a decorator
        return _Anything(f"{self._name}()")

    def __mro_entries__(self, bases: Any) -> tuple[type, ...]:
        return (object,)

    def __getitem__(self, key: Any) -> Any:
        return self

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __or__

    def __iter__(self) -> Any:
        return iter(())


class JITFunction:
    """A kernel that can be looked at, not launched."""

    def __init__(self, function: Any) -> None:
        self.fn, self.__name__, self.__doc__ = function, function.__name__, function.__doc__
        self.__module__ = function.__module__
        self.arg_names = list(function.__code__.co_varnames[: function.__code__.co_argcount])

    def __getitem__(self, grid: Any) -> Any:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"triton stand-in: kernel {self.__name__} was launched on a CPU")


def jit(function: Any = None, **options: Any) -> Any:
    return JITFunction if function is None else JITFunction(function)


def autotune(*args: Any, **kwargs: Any) -> Any:
    return lambda function: function


heuristics = autotune


class Config:
    def __init__(self, kwargs: Any = None, num_warps: int = 4, num_stages: int = 2, **more: Any) -> None:
        self.kwargs, self.num_warps, self.num_stages = kwargs or {}, num_warps, num_stages


def cdiv(a: int, b: int) -> int:
    return -(a // -b)


def next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length() if n > 0 else 1


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        if full in sys.modules:
            return sys.modules[full]
        value: Any
        if name == "JITFunction":
            value = JITFunction
        elif name[0].isupper():  # torch._inductor subclasses these, some as exceptions
            value = type(name, (Exception,) if name.endswith("Error") or name == "OutOfResources" else (), {})
        else:
            return _Anything(full)
        setattr(self, name, value)
        return value


class _NoDriver:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError("triton stand-in: 0 active drivers")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Any ``triton.x.y`` can be imported."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname.startswith("triton."):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> Any:
        module = _Module(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: Any) -> None:
        if module.__name__ == "triton.runtime":
            module.driver = _NoDriver()
        if module.__name__ == "triton.language":
            module.constexpr = type(
                "constexpr", (), {"__init__": lambda self, value=None: setattr(self, "value", value)}
            )
            for name in ("tensor", "dtype", "pointer_type"):
                setattr(module, name, type(name, (), {"__init__": lambda self, *args, **kwargs: None}))


sys.meta_path.insert(0, _Finder())
language = importlib.import_module("triton.language")
runtime = importlib.import_module("triton.runtime")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything(f"triton.{name}")

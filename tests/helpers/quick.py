"""What `make test-quick` leaves out: all that runs a model, which it cannot, and what is slow without one."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from pathlib import Path

TESTS = Path(__file__).parents[1]
MODELS = {"torch", "transformers", "tokenizers", "sglang"}
SLOW = {
    "benchmarks/bench/test_bench_url.py": "servers",
    "export/test_default_controller.py": "trains the shipped controller anew",
    "benchmarks/cli/test_doctor.py": "imports torch, which the doctor looks at",
    "benchmarks/report/test_report_browser.py": "a browser",
}


def left_out(path: Path) -> bool:
    return any(map(path.match, SLOW)) or runs_models(path)


def runs_models(path: Path) -> bool:
    """Whether a file of tests imports what runs models, by whatever other files."""
    todo, seen = [path], set()
    while todo:
        seen.add(here := todo.pop())
        for name in imported(here):
            if name.partition(".")[0] in MODELS:
                return True
            todo += set(files(name)) - seen
    return False


@cache
def imported(path: Path) -> tuple[str, ...]:
    """What a file of tests imports anywhere, and a module of ours when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: list[str] = []
    for node in tree.body if TESTS.parent in path.parents and TESTS not in path.parents else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


def files(name: str) -> Iterator[Path]:
    """Those of ours that importing ``name`` runs, the packages around it too."""
    first, *rest = name.split(".")
    if first != "speckv":
        rest = ["tests", "helpers", first]
    for depth in range(1, len(rest) + 1):
        module = TESTS.parent.joinpath(*rest[:depth])
        yield from (path for path in (module.with_suffix(".py"), module / "__init__.py") if path.exists())


class NoModels(MetaPathFinder):
    """As if torch were not installed: what runs a model all the same fails, instead of making this run slow."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        if name == "torch":
            raise ModuleNotFoundError("torch: `make test-quick` has no models; see tests/helpers/quick.py", name=name)

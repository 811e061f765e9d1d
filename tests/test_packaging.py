"""What holds for the whole source tree: packages, layers, imports, docstrings, sizes, nothing private."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from pages import LAYERS, ROOT, sources

MODULES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "skl2onnx", "sklearn", "pyarrow"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{named(path)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_package_is_declared() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    found = {
        ".".join(("speckv", *path.parent.relative_to(ROOT).parts))
        for folder in (*LAYERS, "tests")
        for path in (ROOT / folder).rglob("__init__.py")
        if "sglang_cpu" not in path.parts  # a distribution of its own, for .venv-sglang only
    }
    assert found == set(settings["packages"])
    assert settings["package-dir"] == {f"speckv.{layer}": layer for layer in LAYERS}
    assert not (ROOT / "speckv").exists()  # it would shadow the four
    for layer in LAYERS:
        assert (ROOT / layer / "py.typed").exists()


@pytest.mark.parametrize("layer", LAYERS)
def test_dependencies_point_one_way(layer: str) -> None:
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    for path in sorted((ROOT / layer).rglob("*.py")):
        ours = [name.split(".")[1] for name in imported(path) if name.split(".")[0] == "speckv"]
        assert set(ours) <= set(allowed), named(path)


def test_no_two_modules_import_each_other() -> None:
    """Not for their types either: what one needs to know of the other is a protocol."""
    modules = {named(path).removesuffix(".py").replace("/", "."): path for path in MODULES}
    graph = {}
    for name, path in modules.items():
        found = [one.removeprefix("speckv.") for one in imported(path)]
        graph[name] = {one if one in modules else one.rpartition(".")[0] for one in found} & modules.keys()
    TopologicalSorter(graph).prepare()


def test_the_controller_brings_no_framework() -> None:
    modules = [
        ".".join(("speckv", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for path in MODULES
        if path.is_relative_to(ROOT / "controller")
    ]
    assert "speckv.controller.policies.throughput" in modules
    script = "import sys\nfor name in sys.argv[1:]: __import__(name)\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script, *modules], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert set(modules) <= set(loaded)
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_every_module_says_what_it_is_for_and_can_be_held_in_mind(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert len(text.splitlines()) <= 300


PRIVATE = {
    "a home folder": r"(?<![\w.~])/(?:home|Users)/[a-z]\w*|(?<![\w.~])/roo[t]/",
    "a package registry": r"(?:pypi|pythonhosted|python)\.org/(?:simple|packages)|https?://[^\s\"']+/simple\b",
    "an address with a password": r"https?://[^\s/:@\"']+:[^\s/@\"']+@",
}


def test_the_patterns_find_what_they_are_for() -> None:
    for kind, text in (
        ("a home folder", "see /home" + "/ann/x"),
        ("a home folder", '"/root' + '/.cache"'),
        ("a package registry", "https://files.pythonhosted.org" + "/packages/ab"),
        ("a package registry", "--index-url http://10.0.0.7:3141/root/mirror" + "/simple"),
        ("an address with a password", "https://ann:secret" + "@example.com/"),
    ):
        assert re.search(PRIVATE[kind], text), text
    assert not re.search(PRIVATE["a home folder"], "~/.cache and /usr/home/x and $HOME/x")


@pytest.mark.parametrize("kind", PRIVATE)
def test_no_file_holds(kind: str) -> None:
    for path in sources():
        found = re.search(PRIVATE[kind], path.read_bytes().decode("utf-8", errors="ignore"))
        assert not found, f"{named(path)}: {found and found[0]}"

"""Which versions of what may be installed is said once, in pyproject.toml, and everything else agrees with it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from pages import PAGES, ROOT, commands

from speckv.controller.errors import SpecKVError
from speckv.controller.extras import EXTRA_OF, missing, require

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
NEEDED = [Requirement(line) for line in PROJECT["dependencies"]] + [wanted for of in EXTRAS.values() for wanted in of]
FOR_DEVELOPERS = {wanted.name for wanted in EXTRAS["dev"]}


def test_transformers_is_allowed_from_the_oldest_tested_to_the_minor_after_the_newest() -> None:
    compatibility = pytest.importorskip("speckv.integrations.transformers.compatibility")
    tested = [Version(version) for version in compatibility.TESTED_VERSIONS]
    assert tested == sorted(tested)
    (wanted,) = (wanted for wanted in EXTRAS["transformers"] if wanted.name == "transformers")
    oldest, newest = tested[0], tested[-1]
    bounds = {f">={oldest.major}.{oldest.minor}", f"<{newest.major}.{newest.minor + 2}"}
    assert {str(bound) for bound in wanted.specifier} == bounds


def test_every_tested_transformers_has_an_environment() -> None:
    compatibility = pytest.importorskip("speckv.integrations.transformers.compatibility")
    *others, newest = compatibility.TESTED_VERSIONS
    named = {
        path.name: re.findall(r"^transformers==(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        for path in (ROOT / "constraints").glob("*.txt")
    }
    assert named["cpu.txt"] == [newest]
    wanted = {f"transformers-{version.rpartition('.')[0]}.txt": [version] for version in others}
    assert {name: of for name, of in named.items() if name.startswith("transformers-")} == wanted


def test_a_package_has_one_range_and_its_end_is_said() -> None:
    for wanted in NEEDED:
        if wanted.name == "speckv" or wanted.name in FOR_DEVELOPERS or wanted.name == "packaging":
            continue  # packaging counts in years, and promises that a new one is no break
        assert {other.specifier for other in NEEDED if other.name == wanted.name} == {wanted.specifier}
        assert any(bound.operator in ("<", "==") for bound in wanted.specifier), wanted


def test_a_missing_library_is_brought_by_the_extra_that_is_named() -> None:
    distributions = packages_distributions()
    for module, extra in EXTRA_OF.items():
        names = {name.lower().replace("_", "-") for name in distributions.get(module, [module])}
        brought = {wanted.name.lower().replace("_", "-") for wanted in EXTRAS[extra]}
        assert names & brought, f"{module} is not brought by {extra}"


def test_a_line_names_all_that_is_missing_and_one_command() -> None:
    assert missing("torch") == "torch is not installed; pip install 'speckv[transformers]'"
    assert (
        missing("torch", "pyarrow", "onnx", "sklearn")
        == "torch, pyarrow, onnx and sklearn are not installed; pip install 'speckv[transformers,train,cpu]'"
    )
    assert missing("numpy") == "numpy is not installed; install speckv again, which brings what it needs"
    require("json", "numpy")
    with pytest.raises(SpecKVError, match="no_such_one and no_such_other are not installed; install speckv again"):
        require("json", "no_such_one", "numpy", "no_such_other")


def test_the_plugin_for_sglang_comes_with_its_runtime() -> None:
    assert {"speckv[cpu]", "sglang==0.5.23"} == set(map(str, EXTRAS["sglang"]))


def test_every_extra_that_is_named_is_one() -> None:
    files = [
        *PAGES,
        *(
            path
            for layer in ("controller", "export", "integrations", "benchmarks")
            for path in (ROOT / layer).rglob("*.py")
        ),
    ]
    for path in files:
        for extras in re.findall(r"(?:speckv|\.|whl)\[([a-z,]+)\]['\"`]", path.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= EXTRAS.keys(), f"{path.name}: {extras}"


def test_no_page_installs_the_package_from_an_index() -> None:
    lines = [line for page in PAGES for line in commands(page) if line.startswith("pip install")]
    assert lines
    for line in lines:
        assert re.fullmatch(r'pip install "(\.|dist/speckv-[\d.]+-py3-none-any\.whl)\[[a-z,]+\]"', line), line
    assert f"dist/speckv-{PROJECT['version']}-py3-none-any.whl" in "".join(lines)

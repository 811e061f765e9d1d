"""What the doctor says of versions inside and outside of what is allowed, and of what is not installed."""

from __future__ import annotations

import sys

import pytest

from speckv.benchmarks.cli import findings as doctor
from speckv.benchmarks.cli.findings import Finding, examine
from speckv.integrations.installed import allowed

RANGE = ">=5.19,<5.26"


def finding(what: str) -> Finding:
    (found,) = (one for one in examine() if one.what == what)
    return found


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("5.18.9", False),
        ("5.19.0", True),
        ("5.25.3", True),
        ("5.26.0", False),
        ("5.24.0.dev0", True),
        ("4.57.1", False),
    ],
)
def test_a_version_is_allowed_or_the_remedy_is_named(version: str, fits: bool) -> None:
    found = doctor.ranged("transformers", version, allowed()["transformers"])
    assert found.fits is fits and found.found.startswith(f"{version} ") and RANGE in found.found
    assert ("outside of what is allowed; pip install 'transformers>=5.19,<5.26'" in found.found) is not fits


def test_a_local_build_of_torch_is_one_of_its_version() -> None:
    assert doctor.ranged("torch", "2.15.0+cu132", allowed()["torch"]).fits is True


def test_the_ranges_are_those_that_were_installed_with_the_package() -> None:
    assert {"numpy", "onnx", "torch", "transformers", "typer", "rich", "matplotlib"} <= allowed().keys()
    assert "speckv" not in allowed()
    assert finding("numpy").fits is True and finding("onnx").found.count("<2") == 1


def test_what_no_result_names_is_said_only_if_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [one for one in examine() if one.what == "msgspec"]
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "99.0" if name == "msgspec" else real(name))
    assert finding("msgspec").fits is False


def test_tested_versions_of_transformers_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    compatibility = pytest.importorskip("speckv.integrations.transformers.compatibility")
    named = ", ".join(compatibility.TESTED_VERSIONS)
    assert finding("transformers hook").found.endswith(f"tested with transformers {named}")
    monkeypatch.setattr(compatibility, "TESTED_VERSIONS", ("5.0.0",))
    assert "tested with transformers 5.0.0, not with 5." in finding("transformers hook").found


def test_a_transformers_that_the_hook_cannot_be_imported_with(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "speckv.integrations.transformers.compatibility", None)
    found = finding("transformers hook")
    assert found.fits is False and found.found.startswith("cannot be imported: ")


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("onnxruntime", "torch", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    remedy = "onnxruntime is not installed; pip install 'speckv[cpu]', or 'speckv[gpu]' on a machine with CUDA"
    assert finding("controller") == Finding("controller", remedy, False)
    hook = Finding("transformers hook", "torch and transformers are not installed; pip install 'speckv[transformers]'")
    assert finding("transformers hook") == hook


def test_a_package_without_onnx_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("speckv.integrations.runtime", "speckv.export"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert finding("controller") == Finding("controller", "onnx is not installed; pip install 'speckv[cpu]'", False)

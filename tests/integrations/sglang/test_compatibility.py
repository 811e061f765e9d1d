"""What the plugin relies on in SGLang is all there; where it is not, nothing is registered and the reason is said."""

from __future__ import annotations

import logging
from typing import Any

import pytest

pytest.importorskip("sglang")

from speckv.benchmarks.cli.findings import examine
from speckv.integrations.sglang import compatibility, plugin


def test_all_that_it_relies_on_is_there() -> None:
    assert compatibility.mismatches() == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("speculative.eagle_info", "EagleDraftInput.__init__", "self topk_q"), "__init__ no longer takes topk_q"),
        (("speculative.eagle_info", "EagleDraftOutput", None), "EagleDraftOutput is gone"),
        (("speculative.eagle_v7", "Worker", None), "speculative.eagle_v7 cannot be imported"),
    ],
)
def test_a_mismatch_registers_nothing_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, changed: Any, words: str
) -> None:
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    def registered(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("registered")

    monkeypatch.setattr(compatibility, "RELIED_ON", (*compatibility.RELIED_ON, changed))
    monkeypatch.setattr(SpeculativeAlgorithm, "register", registered)
    with caplog.at_level(logging.ERROR, "speckv"):
        plugin.register()
    assert words in caplog.text and "0.5.23" in caplog.text and "pip install sglang==" in caplog.text
    finding = next(finding for finding in examine() if finding.what == "sglang plugin")
    assert finding.fits is False and words in finding.found

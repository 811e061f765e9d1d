"""README's tables are those of the stored results, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path

from speckv.benchmarks.readme import rendered

ROOT = Path(__file__).parent.parent


def test_tables_equal_the_stored_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == rendered(text, ROOT / "benchmarks" / "results"), "run: python -m speckv.benchmarks.readme"


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"

"""What README, CONTRIBUTING and docs tell a reader to type: their blocks of commands, Python and JSON."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("controller", "export", "integrations", "benchmarks")
"""From the one that everything may import to the one that may import everything."""
README = ROOT / "README.md"
PAGES = [
    *(README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md"),
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if language in languages]


def commands(page: Path) -> list[str]:
    """The command lines in blocks without a language, joined where they go on, without comments."""
    lines = "".join(blocks(page, "", "sh")).replace("\\\n", " ").splitlines()
    shown = (" ".join(line.split(" #")[0].split()) for line in lines)
    return [line for line in shown if line.split(" ")[0] in ("speckv", "make", "pip", "python")]


def sources() -> list[Path]:
    """The files that are, or would be, in the repository."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        run = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git clone")
    return [ROOT / name for name in run.stdout.split("\0") if name and (ROOT / name).is_file()]

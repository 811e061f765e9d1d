"""What README, CONTRIBUTING and docs tell a reader to type: their blocks of commands, Python and JSON."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
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

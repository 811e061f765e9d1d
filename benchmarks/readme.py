"""Write README's result tables from the stored results, so that no figure there is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speckv.benchmarks.replay.figures import table
from speckv.controller.files import write_whole

ROOT = Path.cwd()
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def section(results: Path) -> str:
    """The text between README's markers, from every ``demo-*.json`` and ``replay.json`` in ``results``."""
    parts = [_table(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(results.glob("demo-*.json"))]
    if (path := results / "replay.json").exists():
        parts.append(_replay(json.loads(path.read_text(encoding="utf-8"))))
    return "\n\n".join(parts)


def _replay(result: dict[str, Any]) -> str:
    regimes = list(dict.fromkeys(row["regime"] for row in result["rows"]))
    made = table(result["rows"], regimes)
    prompts = min(trace["prompts"] for trace in result["traces"].values())
    return (
        f"`{result['command']}`: exact replay of every policy on traces of {prompts} held-out prompts; tokens per "
        "second against the best fixed γ chosen in hindsight, in cost regimes of the paper's GPU, of an 8B draft for a "
        f"70B target, and of this machine.\n\n{made.markdown().rstrip()}"
    )


def _table(result: dict[str, Any]) -> str:
    machine = result["machine"]
    lines = [
        f"`{result['command']}`: {result['target']} target, {result['draft']} draft, {result['prompts']} held-out "
        f"prompts × {result['tokens']} tokens, greedy, on {machine['cores']} cores of {machine['cpu']} "
        f"({machine['formats']}).",
        "",
        "| mode | tokens/s | vs plain | tokens/verify | mean γ | acceptance | output as plain |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        acceptance = f"{row['acceptance_rate']:.0%}" if row["drafted"] else "–"
        lines.append(
            f"| {row['mode']} | {row['tokens_per_s']:.2f} | {row['vs_plain']:.2f} | {row['tokens_per_verify']:.2f} "
            f"| {row['mean_gamma']:.1f} | {acceptance} | {row['identical']}/{result['prompts']} |"
        )
    return "\n".join(lines)


def rendered(readme: str, results: Path) -> str:
    """``readme`` with the section between its markers made anew."""
    before, rest = readme.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n{section(results)}\n{END}{after}"


def main() -> None:
    path = ROOT / "README.md"
    write_whole(path, rendered(path.read_text(encoding="utf-8"), ROOT / "benchmarks" / "results"))


if __name__ == "__main__":
    main()

"""Write README's claim and tables from the stored results, so that no figure there is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speckv.benchmarks.bench.rows import summary
from speckv.benchmarks.gpu.figures import section as gpu_section
from speckv.benchmarks.replay.figures import table
from speckv.benchmarks.report.verdict import RESTS
from speckv.benchmarks.tables import fill_sections
from speckv.controller.files import write_whole

ROOT = Path.cwd()


def results_section(results: Path) -> str:
    """Tables of every ``demo-``, ``end-to-end-`` and ``fresh-*.json``, of ``widths``, ``replay`` and ``gpu.json``."""
    parts = [_table(_read(path)) for path in sorted(results.glob("demo-*.json"))]
    timed = (path for kind in ("end-to-end", "fresh") for path in sorted(results.glob(f"{kind}-*.json")))
    parts += [_end_to_end(_read(path)) for path in timed]
    if (path := results / "widths.json").exists():
        parts.append(_widths(_read(path)))
    if (path := results / "replay.json").exists():
        parts.append(_replay(_read(path)))
    if (path := results / "gpu.json").exists():
        parts.append(gpu_section(_read(path)))
    return "\n\n".join(parts)


def claim_section(results: Path) -> str:
    """What the stored end-to-end runs and the replay say of ours, the bad with the good."""
    said = []
    for path in sorted(results.glob("end-to-end-*.json"), reverse=True):  # transformers first
        result = _read(path)
        ours = [row for row in result["rows"] if (row["policy"], row["task"]) == ("speckv", "all")]
        places = ", ".join(f"{row['vs_plain']:.2f} ({_place(row)})" for row in ours)
        (mean,) = result["means"]
        more = f"; against transformers' own default {mean['vs_hf_default']:.2f}" if "vs_hf_default" in mean else ""
        said.append(
            f"- **{ours[0]['framework']}**, wall clock, {result['settings']['prompts']} held-out prompts × "
            f"{result['settings']['tokens']} tokens on {result['machine']['cores']} CPU cores "
            f"({result['machine']['formats'].split()[-1]}): {places} times plain "
            f"decoding; geometric mean against the best of plain and fixed γ 2, 4, 8 in hindsight "
            f"{mean['vs_best_fixed']:.2f}{more}."
        )
    if (path := results / "replay.json").exists():
        rows = [r for r in _read(path)["rows"] if (r["task"], r["batch"]) == ("all", 1)]
        chains, trees = (
            ", ".join(f"{row['vs_best_fixed']:.2f} ({row['regime']})" for row in rows if row["policy"] == policy)
            for policy in ("speckv-chain", "speckv")
        )
        said.append(
            "- **Exact replay** of recorded drafts, one request, against the best fixed γ in hindsight: with siblings, "
            f"{trees}; with chains {chains}."
        )
    return "\n".join(said)


SECTIONS = {"claim": claim_section, "results": results_section}
"""Each is between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->`` in README."""


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _place(row: dict[str, Any]) -> str:
    place = str(row["regime"])
    if row["framework"] == "sglang":
        place += f", {row['concurrency']} at a time"
    return place if row["mean_gamma"] >= RESTS else f"{place}, hardly drafting"


def _end_to_end(result: dict[str, Any]) -> str:
    machine, settings = result["machine"], result["settings"]
    framework = result["rows"][0]["framework"]
    order = "policies interleaved"
    if framework == "sglang":
        order = "one server after the other"
        if settings.get("fresh"):
            order = "every figure of a server that was just started, its costs timed by itself"
        if settings["repeats"] > 1:
            order += f", {settings['repeats']} times in mirrored order"
    return (
        f"`{result['command']}`: wall clock in {framework}, {settings['prompts']} held-out "
        f"prompts × {settings['tokens']} tokens, greedy, {order}, on {machine['cores']} cores of "
        f"{machine['cpu']} ({machine['formats']}). Best fixed is the best of plain and γ 2, 4, 8 in hindsight, with "
        f"the 95 % interval beside it; waits in ms.\n\n{summary(result['rows']).markdown().rstrip()}"
    )


def _widths(result: dict[str, Any]) -> str:
    lines = ["| ceiling | states built beforehand | seconds | MiB | server up after, s |", "|---:|---:|---:|---:|---:|"]
    for row in result["rows"]:
        made = f"{row['widths_s']:.2f} | {row['widths_mib']:.1f}"
        lines.append(f"| {row['ceiling']} | {row['widths']} | {made} | {row['start_s']:.0f} |")
    intro = (
        f"`{result['command']}`: what SGLang's server takes to build a state for every γ up to the ceiling and every "
        "size of a tree, draft loop eager. The ceiling's own state is part of any start and not counted; the start has "
        "the timing of rounds in it, as no costs are stored."
    )
    return "\n".join([intro, "", *lines])


def _replay(result: dict[str, Any]) -> str:
    prompts = {name: f"{trace['pair']}, {trace['compression']}" for name, trace in result["traces"].items()}
    intro = (
        f"`{result['command']}`: exact replay of every policy on traces of held-out prompts "
        f"({'; '.join(prompts.values())}), the mean of several orders of the prompts; "
        "tokens per second against the best fixed γ of that batch chosen in "
        "hindsight, in cost regimes of the paper's GPU, of an 8B draft for a 70B target, of the machine "
        "that the traces were made on, and (h100-…) modelled by roofline."
    )
    shown = []
    for batch in sorted({row["batch"] for row in result["rows"]}):
        made = table([row for row in result["rows"] if row["batch"] == batch], batch)
        shown.append(f"Batch {batch}:\n\n{made.markdown().rstrip()}")
    return "\n\n".join([intro, *shown])


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
    """``readme`` with the sections between its markers made anew."""
    return fill_sections(readme, {name: section(results) for name, section in SECTIONS.items()})


def main() -> None:
    path = ROOT / "README.md"
    write_whole(path, rendered(path.read_text(encoding="utf-8"), ROOT / "benchmarks" / "results"))


if __name__ == "__main__":
    main()

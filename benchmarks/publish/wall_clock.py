"""Wall-clock results as sections of a page."""

from __future__ import annotations

from pathlib import Path

from speckv.benchmarks.bench.plan import PLAIN
from speckv.benchmarks.bench.rows import summary
from speckv.benchmarks.common.tables import Table
from speckv.benchmarks.publish.parts import Result, introduced, listed, read


def timed_section(results: Path, framework: str) -> str:
    """Every ``end-to-end-`` and ``fresh-*.json`` of a framework."""
    found = [read(path) for kind in ("end-to-end", "fresh") for path in sorted(results.glob(f"{kind}-*.json"))]
    return "\n\n".join(_end_to_end(result) for result in found if result["rows"][0]["framework"] == framework)


def _end_to_end(result: Result) -> str:
    machine, settings, rows = result["machine"], result["settings"], result["rows"]
    framework = rows[0]["framework"]
    order = "one server after the other" if framework == "sglang" else "policies interleaved"
    if settings.get("fresh"):
        order = "every figure of a server that was just started, its costs timed by itself"
    if settings.get("together"):
        order = "all servers at once, of which one runs, in turns"
    if framework == "sglang" and settings["repeats"] > 1:
        order += f", {settings['repeats']} times in mirrored order"
    drawn = f"sampled at temperature {settings['temperature']:g}" if settings.get("temperature") else "greedy"
    fixed = listed(row["policy"] for row in rows if row["policy"] == PLAIN or row["policy"].startswith("fixed-"))
    intro = (
        f"`{result['command']}`: wall clock in {framework}, {settings['prompts']} held-out "
        f"prompts × {settings['tokens']} tokens, {drawn}, {order}, on {machine['cores']} cores of "
        f"{machine['cpu']} ({machine['formats']}). Best fixed is the best of {fixed} in hindsight, with "
        "the 95 % interval beside it; waits in ms."
    )
    names = {"vs_plain": "plain decoding", "vs_best_fixed": "the best fixed", "vs_hf_default": "hf-default"}
    names["vs_sglang_adaptive"] = "sglang-adaptive"
    parts = [introduced(intro, summary(rows))]
    for mean in result["means"]:
        within = {key: f" ({low:.2f}–{high:.2f})" for key, (low, high) in mean.get("ci", {}).items()}
        said = ", ".join(f"{mean[key]:.2f}{within.get(key, '')} of {of}" for key, of in names.items() if key in mean)
        parts.append(f"Geometric mean of speckv over the bf16, int8 and nf4 targets measured: {said}.")
    return "\n\n".join(parts)


def demo_section(results: Path) -> str:
    return "\n\n".join(_demo(read(path)) for path in sorted(results.glob("demo-*.json")))


def _demo(result: Result) -> str:
    machine = result["machine"]
    made = Table("Demo", ("mode", "tokens/s", "vs plain", "tokens/verify", "mean γ", "acceptance", "output as plain"))
    for row in result["rows"]:
        speed = (f"{row[key]:.2f}" for key in ("tokens_per_s", "vs_plain", "tokens_per_verify"))
        drafted = f"{row['mean_gamma']:.1f}", f"{row['acceptance_rate']:.0%}" if row["drafted"] else "–"
        made.rows.append((row["mode"], *speed, *drafted, f"{row['identical']}/{result['prompts']}"))
    return introduced(
        f"`{result['command']}`: {result['target']} target, {result['draft']} draft, {result['prompts']} held-out "
        f"prompts × {result['tokens']} tokens, greedy, on {machine['cores']} cores of {machine['cpu']} "
        f"({machine['formats']}).",
        made,
    )

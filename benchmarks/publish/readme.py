"""Fill README's table and docs/results.md from the stored results, so that no figure there is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speckv.benchmarks.bench.plan import OURS, PLAIN
from speckv.benchmarks.bench.rows import summary
from speckv.benchmarks.common.tables import Table, fill_sections
from speckv.benchmarks.gpu.figures import section as gpu_section
from speckv.benchmarks.replay.figures import table
from speckv.benchmarks.report.verdict import RESTS
from speckv.controller.files import write_whole

ROOT = Path.cwd()
Result = dict[str, Any]

TIMED = {
    "transformers": ("end-to-end-transformers",),
    "transformers, a CPU without bf16 instructions": ("end-to-end-transformers-emulated-bf16",),
    "SGLang": ("end-to-end-sglang", "end-to-end-sglang-compressed"),
}
"""README's lines of wall-clock runs, and the stored files that each sums up."""

CLAIM = ("measured", "models", "on", "× plain", "× best fixed γ", "resting: × plain")


def claim_section(results: Path) -> str:
    """README's table: what was measured, on what, and the range of our ratios over its settings."""
    timed = [_timed_row(name, [_read(results / f"{file}.json") for file in files]) for name, files in TIMED.items()]
    replay = [_replay_row(_read(results / "replay.json"), batched) for batched in (False, True)]
    return _listing(CLAIM, [*timed, _gpu_row(_read(results / "gpu.json")), *replay])


def timed_section(results: Path, framework: str) -> str:
    """Every ``end-to-end-`` and ``fresh-*.json`` of a framework."""
    found = [_read(path) for kind in ("end-to-end", "fresh") for path in sorted(results.glob(f"{kind}-*.json"))]
    return "\n\n".join(_end_to_end(result) for result in found if result["rows"][0]["framework"] == framework)


def start_section(results: Path) -> str:
    result = _read(results / "widths.json")
    made = Table("Start-up", ("ceiling", "states built beforehand", "seconds", "MiB", "server up after, s"))
    for row in result["rows"]:
        built = f"{row['widths_s']:.2f}", f"{row['widths_mib']:.1f}"
        made.rows.append((str(row["ceiling"]), str(row["widths"]), *built, f"{row['start_s']:.0f}"))
    return _with(
        f"`{result['command']}`: what SGLang's server takes to build a state for every γ up to the ceiling and every "
        "size of a tree, draft loop eager. The ceiling's own state is part of any start and not counted; the start has "
        "the timing of rounds in it, as no costs are stored.",
        made,
    )


def replay_section(results: Path) -> str:
    result = _read(results / "replay.json")
    traces = "; ".join(f"{trace['pair']}, {trace['compression']}" for trace in result["traces"].values())
    intro = (
        f"`{result['command']}`: exact replay of every policy on traces of held-out prompts ({traces}), the mean of "
        "several orders of the prompts; tokens per second against the best fixed γ of that batch chosen in hindsight, "
        "in cost regimes of the paper's GPU, of an 8B draft for a 70B target, of the machine that the traces were "
        "made on, and (h100-…) modelled by roofline."
    )
    by_batch: dict[int, list[Result]] = {}
    for row in sorted(result["rows"], key=lambda row: int(row["batch"])):
        by_batch.setdefault(row["batch"], []).append(row)
    return "\n\n".join([intro, *(_with(f"Batch {batch}:", table(rows, batch)) for batch, rows in by_batch.items())])


def exact_section(results: Path) -> str:
    """Outputs compared with the target's own, in float32; the soak, whose every answer is compared."""
    rows = []
    for path in sorted(results.glob("identity-*.json")):
        result = _read(path)
        different = result["outputs_that_differ_from_plain"]
        what = f"{result.get('framework', 'transformers')}, {result['pair']}, {result['dtype']}: {_listed(different)}"
        rows.append([f"`{path.name}`", what, str(result["prompts"] * len(different)), str(sum(different.values()))])
    for row in _read(results / "sglang-gpu.json")["rows"]:
        what = f"SGLang on a GPU, {row['mode']}, trees: {row['trees']}"
        rows.append(["`sglang-gpu.json`", what, str(row["requests"]), str(row["different"])])
    for mode, row in _read(results / "soak-sglang.json")["modes"].items():
        right, wrong = row["answered_as_plain"], len(row["wrong"])
        what = f"SGLang under mixed load with aborts, mode {mode}"
        rows.append(["`soak-sglang.json`", what, str(right + wrong), str(wrong)])
    return _listing(("stored in", "compared", "outputs", "different"), rows)


def overhead_section(results: Path) -> str:
    """What a decision takes, alone and as a share of a step."""
    latency, attached, loops = (_read(results / f"{name}.json") for name in ("latency", "attach-cost", "overhead"))
    greedy, sampling = (loops[kind]["ratio_to_transformers"]["per token"] for kind in ("greedy", "sampling"))
    return (
        f"- `{latency['command']}`: a decision takes {latency['p50_us']:.0f} µs (median; {latency['p99_us']:.0f} µs at "
        f"the 99th percentile), and {latency['batch64_p99_us']:.0f} µs at the 99th percentile in a batch of 64.\n"
        f"- `{attached['command']}`: signals and decisions are {attached['share_of_total']:.2%} of the time of a step, "
        f"the signals alone {attached['signals_share']:.2%}.\n"
        f"- `{loops['command']}`: per drafted token of a tiny model, the loop takes {greedy:.2f} (greedy) and "
        f"{sampling:.2f} (sampling) of the time of transformers' own loop."
    )


def stored_section(results: Path) -> str:
    """Every stored result: the command that made it, the revision where the file names one, and the machine."""
    rows = []
    for path in sorted(results.glob("*.json")):
        result = _read(path)
        machine = result.get("machine") or result.get("about", {}).get("machine")
        where = result.get("device") or (_machine(machine) if machine else "–")
        made = f"`{result['command']}`" if "command" in result else "–"
        rows.append([f"`{path.name}`", made, result.get("revision", "–"), where])
    return _listing(("file", "made by", "revision", "on"), rows)


PAGES: Mapping[str, Mapping[str, Callable[[Path], str]]] = {
    "README.md": {"claim": claim_section},
    "docs/results.md": {
        "demo": lambda results: "\n\n".join(_demo(_read(path)) for path in sorted(results.glob("demo-*.json"))),
        "transformers": lambda results: timed_section(results, "transformers"),
        "sglang": lambda results: timed_section(results, "sglang"),
        "start": start_section,
        "replay": replay_section,
        "gpu": lambda results: gpu_section(_read(results / "gpu.json")),
        "exact": exact_section,
        "overhead": overhead_section,
        "stored": stored_section,
    },
}
"""By page its sections, each between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``."""


def _read(path: Path) -> Result:
    content: Result = json.loads(path.read_text(encoding="utf-8"))
    return content


def _with(intro: str, made: Table) -> str:
    return f"{intro}\n\n{made.markdown().rstrip()}"


def _listing(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of words: aligned left, where :class:`Table` has figures."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def _span(values: Iterable[float]) -> str:
    ends = sorted(values)
    return "–".join(dict.fromkeys(f"{value:.2f}" for value in (*ends[:1], *ends[-1:]))) or "–"


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))


def _machine(machine: Result) -> str:
    return str(machine.get("device") or f"{machine['cores']} CPU cores ({machine['formats'].split()[-1]})")


def _ours(rows: Iterable[Result]) -> list[Result]:
    return [row for row in rows if row["policy"] == OURS and row["task"] == "all"]


def _ranges(rows: list[Result]) -> list[str]:
    """Of the settings where we draft our ratios to plain and to the best fixed γ; of the others that to plain."""
    gammas = [row.get("stats", row).get("mean_gamma", row.get("drafted")) for row in rows]  # replay's is in ``drafted``
    resting = [row for row, gamma in zip(rows, gammas, strict=True) if gamma < RESTS]
    drafting = [row for row in rows if row not in resting]
    ratios = [_span(row[key] for row in drafting) for key in ("vs_plain", "vs_best_fixed")]
    count = f"{len(resting)} of {len(rows)}"
    return [*ratios, f"{count}: {_span(row['vs_plain'] for row in resting)}" if resting else count]


def _timed_row(name: str, found: list[Result]) -> list[str]:
    rows = [row for result in found for row in _ours(result["rows"])]
    most = max(row["concurrency"] for row in rows)
    pairs, prompts = (_listed(result["settings"][key] for result in found) for key in ("pair", "prompts"))
    what = f"{pairs}: {_listed(row['regime'] for row in rows)}; {prompts} prompts"
    name += "" if most == 1 else f", 1 to {most} requests at once"
    return [name, what, _listed(_machine(result["machine"]) for result in found), *_ranges(rows)]


def _gpu_row(result: Result) -> list[str]:
    rows = _ours(result["end_to_end"])
    name = f"transformers, 1 to {max(row['batch'] for row in rows)} prompts a call"
    size, _, _, prompts, _ = result["plan"]["pair"]
    return [name, f"{size.upper()}, random weights: bf16; {prompts} prompts", result["device"], *_ranges(rows)]


def _replay_row(result: Result, batched: bool) -> list[str]:
    rows = [row for row in _ours(result["rows"]) if (row["batch"] > 1) is batched]
    sizes = sorted({row["batch"] for row in rows})
    name = f"batches of {sizes[0]} to {sizes[-1]}" if batched else "one request"
    what = f"{_listed(trace['pair'] for trace in result['traces'].values())}: recorded drafts"
    costs = f"{len({row['regime'] for row in rows})} sets of costs"
    return [f"exact replay, {name}", what, costs, *_ranges(rows)]


def _end_to_end(result: Result) -> str:
    machine, settings, rows = result["machine"], result["settings"], result["rows"]
    framework = rows[0]["framework"]
    order = "one server after the other" if framework == "sglang" else "policies interleaved"
    if settings.get("fresh"):
        order = "every figure of a server that was just started, its costs timed by itself"
    if framework == "sglang" and settings["repeats"] > 1:
        order += f", {settings['repeats']} times in mirrored order"
    fixed = _listed(row["policy"] for row in rows if row["policy"] == PLAIN or row["policy"].startswith("fixed-"))
    intro = (
        f"`{result['command']}`: wall clock in {framework}, {settings['prompts']} held-out "
        f"prompts × {settings['tokens']} tokens, greedy, {order}, on {machine['cores']} cores of "
        f"{machine['cpu']} ({machine['formats']}). Best fixed is the best of {fixed} in hindsight, with "
        "the 95 % interval beside it; waits in ms."
    )
    names = {"vs_plain": "plain decoding", "vs_best_fixed": "the best fixed", "vs_hf_default": "hf-default"}
    parts = [_with(intro, summary(rows))]
    for mean in result["means"]:
        said = ", ".join(f"{mean[key]:.2f} of {name}" for key, name in names.items() if key in mean)
        parts.append(f"Geometric mean of speckv over the bf16, int8 and nf4 targets measured: {said}.")
    return "\n\n".join(parts)


def _demo(result: Result) -> str:
    machine = result["machine"]
    made = Table("Demo", ("mode", "tokens/s", "vs plain", "tokens/verify", "mean γ", "acceptance", "output as plain"))
    for row in result["rows"]:
        speed = (f"{row[key]:.2f}" for key in ("tokens_per_s", "vs_plain", "tokens_per_verify"))
        drafted = f"{row['mean_gamma']:.1f}", f"{row['acceptance_rate']:.0%}" if row["drafted"] else "–"
        made.rows.append((row["mode"], *speed, *drafted, f"{row['identical']}/{result['prompts']}"))
    return _with(
        f"`{result['command']}`: {result['target']} target, {result['draft']} draft, {result['prompts']} held-out "
        f"prompts × {result['tokens']} tokens, greedy, on {machine['cores']} cores of {machine['cpu']} "
        f"({machine['formats']}).",
        made,
    )


def rendered(page: str, text: str, results: Path) -> str:
    """The ``text`` of ``page``, a name of PAGES, with the sections between its markers made anew."""
    return fill_sections(text, {name: section(results) for name, section in PAGES[page].items()})


def main() -> None:
    for page in PAGES:
        path = ROOT / page
        write_whole(path, rendered(page, path.read_text(encoding="utf-8"), ROOT / "benchmarks" / "results"))


if __name__ == "__main__":
    main()

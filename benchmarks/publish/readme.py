"""Fill README's table and docs/results.md from the stored results, so that no figure there is typed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from speckv.benchmarks.bench.plan import OURS
from speckv.benchmarks.common.tables import Table, fill_sections
from speckv.benchmarks.gpu.figures import section as gpu_section
from speckv.benchmarks.publish.heads import head_section
from speckv.benchmarks.publish.parts import Result, introduced, listed, listing, of_machine, read
from speckv.benchmarks.publish.wall_clock import demo_section, timed_section
from speckv.benchmarks.replay.figures import table
from speckv.benchmarks.report.verdict import RESTS
from speckv.controller.files import write_whole

ROOT = Path.cwd()
TIMED = {
    "transformers": ("end-to-end-transformers", "end-to-end-transformers-batches"),
    "transformers, a CPU without bf16 instructions": ("end-to-end-transformers-emulated-bf16",),
    "SGLang": ("end-to-end-sglang", "end-to-end-sglang-compressed"),
    "SGLang, an EAGLE-3 head": ("end-to-end-sglang-eagle3", "end-to-end-sglang-eagle3-float32"),
}
"""README's lines of wall-clock runs, and the stored files that each sums up."""

CLAIM = ("measured", "models", "on", "× plain", "× best fixed γ", "resting: × plain")


def claim_section(results: Path) -> str:
    """README's table: what was measured, on what, and the range of our ratios over its settings."""
    timed = [_timed_row(name, [read(results / f"{file}.json") for file in files]) for name, files in TIMED.items()]
    replay = [_replay_row(read(results / "replay.json"), batched) for batched in (False, True)]
    return listing(CLAIM, [*timed, _gpu_row(read(results / "gpu.json")), *replay])


def start_section(results: Path) -> str:
    result = read(results / "widths.json")
    made = Table("Start-up", ("ceiling", "states built beforehand", "seconds", "MiB", "server up after, s"))
    for row in result["rows"]:
        built = f"{row['widths_s']:.2f}", f"{row['widths_mib']:.1f}"
        made.rows.append((str(row["ceiling"]), str(row["widths"]), *built, f"{row['start_s']:.0f}"))
    return introduced(
        f"`{result['command']}`: what SGLang's server takes to build a state for every γ up to the ceiling and every "
        "size of a tree, draft loop eager. The ceiling's own state is part of any start and not counted; the start has "
        "the timing of rounds in it, as no costs are stored.",
        made,
    )


def replay_section(results: Path) -> str:
    result = read(results / "replay.json")
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
    return "\n\n".join(
        [intro, *(introduced(f"Batch {batch}:", table(rows, batch)) for batch, rows in by_batch.items())]
    )


def exact_section(results: Path) -> str:
    """Outputs compared with the target's own, in float32; the soak, whose every answer is compared."""
    rows = []
    for path in sorted(results.glob("identity-*.json")):
        result = read(path)
        different = result["outputs_that_differ_from_plain"]
        pair = f"{result.get('framework', 'transformers')}, {result['pair']}"
        pair += f" with an {kind} head" if (kind := result.get("draft_kind", "model")) != "model" else ""
        what = f"{pair}, {result['dtype']}: {'; '.join(different)}"
        rows.append([f"`{path.name}`", what, str(result["prompts"] * len(different)), str(sum(different.values()))])
    for row in read(results / "sglang-gpu.json")["rows"]:
        what = f"SGLang on a GPU, {row['mode']}, trees: {row['trees']}"
        rows.append(["`sglang-gpu.json`", what, str(row["requests"]), str(row["different"])])
    for mode, row in read(results / "soak-sglang.json")["modes"].items():
        right, wrong = row["answered_as_plain"], len(row["wrong"])
        what = f"SGLang under mixed load with aborts, mode {mode}"
        rows.append(["`soak-sglang.json`", what, str(right + wrong), str(wrong)])
    return listing(("stored in", "compared", "outputs", "different"), rows)


def overhead_section(results: Path) -> str:
    """What a decision takes, alone and as a share of a step."""
    latency, attached, loops = (read(results / f"{name}.json") for name in ("latency", "attach-cost", "overhead"))
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
        result = read(path)
        machine = result.get("machine") or result.get("about", {}).get("machine")
        where = result.get("device") or (of_machine(machine) if machine else "–")
        made = f"`{result['command']}`" if "command" in result else "–"
        rows.append([f"`{path.name}`", made, result.get("revision", "–"), where])
    return listing(("file", "made by", "revision", "on"), rows)


PAGES: Mapping[str, Mapping[str, Callable[[Path], str]]] = {
    "README.md": {"claim": claim_section},
    "docs/results.md": {
        "demo": demo_section,
        "transformers": lambda results: timed_section(results, "transformers"),
        "head": head_section,
        "sglang": lambda results: timed_section(results, "sglang"),
        "start": start_section,
        "replay": replay_section,
        "gpu": lambda results: gpu_section(read(results / "gpu.json")),
        "exact": exact_section,
        "overhead": overhead_section,
        "stored": stored_section,
    },
}
"""By page its sections, each between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``."""


def _span(values: Iterable[float]) -> str:
    ends = sorted(values)
    return "–".join(dict.fromkeys(f"{value:.2f}" for value in (*ends[:1], *ends[-1:]))) or "–"


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
    sizes = sorted({row["concurrency"] for row in rows})
    unit = "prompts a call" if rows[0]["framework"] == "transformers" else "requests at once"
    pairs, prompts = (listed(result["settings"][key] for result in found) for key in ("pair", "prompts"))
    what = f"{pairs}: {listed(row['regime'] for row in rows)}; {prompts} prompts"
    name += "" if sizes == [1] else f", {sizes[0]} to {sizes[-1]} {unit}"
    return [name, what, listed(of_machine(result["machine"]) for result in found), *_ranges(rows)]


def _gpu_row(result: Result) -> list[str]:
    rows = _ours(result["end_to_end"])
    name = f"transformers, 1 to {max(row['batch'] for row in rows)} prompts a call"
    size, _, _, prompts, _ = result["plan"]["pair"]
    return [name, f"{size.upper()}, random weights: bf16; {prompts} prompts", result["device"], *_ranges(rows)]


def _replay_row(result: Result, batched: bool) -> list[str]:
    rows = [row for row in _ours(result["rows"]) if (row["batch"] > 1) is batched]
    sizes = sorted({row["batch"] for row in rows})
    name = f"batches of {sizes[0]} to {sizes[-1]}" if batched else "one request"
    what = f"{listed(trace['pair'] for trace in result['traces'].values())}: recorded drafts"
    costs = f"{len({row['regime'] for row in rows})} sets of costs"
    return [f"exact replay, {name}", what, costs, *_ranges(rows)]


def rendered(page: str, text: str, results: Path) -> str:
    """The ``text`` of ``page``, a name of PAGES, with the sections between its markers made anew."""
    return fill_sections(text, {name: section(results) for name, section in PAGES[page].items()})


def main() -> None:
    for page in PAGES:
        path = ROOT / page
        write_whole(path, rendered(page, path.read_text(encoding="utf-8"), ROOT / "benchmarks" / "results"))


if __name__ == "__main__":
    main()

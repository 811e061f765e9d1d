"""What a result says at first sight, for a terminal of 80 columns: a table per place, and what its figures mean."""

from __future__ import annotations

from speckv.benchmarks.bench.plan import OURS, PLAIN
from speckv.benchmarks.common.tables import Table
from speckv.benchmarks.report import servers
from speckv.benchmarks.report.reading import Result, Row
from speckv.benchmarks.report.words import number, ratio, where

HEADER = ("policy", "tokens/s", "vs plain", "vs best fixed γ", "τ", "γ", "same output")
NOTE = (
    "In brackets 95 % intervals; one that holds 1 shows no difference. Best fixed γ: the fastest of plain and the "
    "fixed γ measured, known only afterwards. τ: tokens written per forward of the target. γ: tokens drafted for it. "
    "Same output: as plain decoding's."
)
SERVERS_NOTE = (
    "vs {first}: times its tokens per second, in brackets 95 % intervals; one that holds 1 shows no difference. TTFT: "
    "median ms to the first token. ITL: ms between tokens, mean, then median and 95th percentile."
)


def tables(result: Result) -> list[Table]:
    """A table per place, with a note beneath the last; the page of `speckv report` says the rest."""
    if result.servers:
        header, cells = tuple(text for text, _ in servers.columns(result)), servers.cells
        note = SERVERS_NOTE.format(first=result.against)
    else:
        header, cells, note = HEADER, _cells, NOTE
    made = []
    for place in result.places:
        rows = [cells(row) for row in result.at(place).values()]
        made.append(Table(where(place), header, list(rows), bold=OURS))
    made[-1].note = note
    return made


def _cells(row: Row) -> tuple[str, ...]:
    plain = row.policy == PLAIN
    return (
        row.policy,
        number(row.tokens_per_s),
        "1" if plain else ratio(row, "vs_plain"),
        ratio(row, "vs_best_fixed"),
        "–" if row.tau is None else f"{row.tau:.2f}",
        "–" if plain or row.mean_gamma is None else f"{row.mean_gamma:.1f}",
        f"{row.identical}/{row.runs}",
    )

"""What is said of servers that ran already, of which only what they answered is known: tables and sentences."""

from __future__ import annotations

from speckv.benchmarks.bench.plan import OURS, PLAIN
from speckv.benchmarks.report.reading import Place, Result, Row
from speckv.benchmarks.report.verdict import Finding, finding
from speckv.benchmarks.report.words import listed, number, ratio, waits, where
from speckv.controller.errors import SpecKVError

FOUND = {
    Finding.ABOVE: "faster",
    Finding.BELOW: "slower",
    Finding.UNCLEAR: "not clearly different",
}


def columns(result: Result) -> tuple[tuple[str, str], ...]:
    """Of a place's table: what stands above each column, and what that means."""
    first = result.against
    return (
        ("server", "its name"),
        ("tokens/s", "tokens per second of all requests together"),
        (f"vs {first}", f"tokens per second against {first}, with 95 % interval"),
        ("TTFT ms", "median time to the first token, of prompts that the server had answered once before"),
        ("ITL ms", "mean wait between tokens"),
        ("ITL 50/95 ms", "median and 95th percentile of these waits; tokens of one chunk come at once"),
        (f"as {first}", f"answers that are the same text as {first}'s"),
    )


def cells(row: Row) -> tuple[str, ...]:
    """A server's figures under ``columns``."""
    times = ("–" if ms is None else number(ms) for ms in (row.ttft_ms, row.itl_mean_ms))
    return (
        row.policy,
        number(row.tokens_per_s),
        ratio(row, "vs_plain"),
        *times,
        waits(row),
        f"{row.identical}/{row.runs}",
    )


def named_as_needed(result: Result) -> bool:
    """Whether there is a server with and one without speculation, as their names say."""
    return {PLAIN, OURS} <= result.servers.keys()


def check_names(result: Result) -> None:
    """Raise SpecKVError where nothing can be recommended, since it is not known which server does what."""
    if result.servers and not named_as_needed(result):
        text = f"recommend compares {OURS} with {PLAIN}, and here are only servers named "
        text += f"{listed(list(result.servers))}; measure them with --url {PLAIN}=URL --url {OURS}=URL"
        raise SpecKVError(text)


def sentences(result: Result) -> list[str]:
    """How each server compares with the first, per place; then ``notes``."""
    made = [text for place in result.places for text in _place(result, place)]
    if len(result.servers) == 1:
        made.append(f"Only {result.against} was measured; give a second --url, and it is compared with this one.")
    return made + notes(result)


def notes(result: Result) -> list[str]:
    """How many answers differ from the first server's, and whose tokens had to be counted as chunks."""
    made = []
    for name in list(result.servers)[1:]:
        rows = [row for place in result.places if (row := result.at(place).get(name))]
        same, runs = sum(row.identical for row in rows), sum(row.runs for row in rows)
        text = f"{runs - same} of {runs} answers of {name} differ from those of {result.against}"
        made.append(f"{text}; in bf16 they need not be equal, in float32 they should." if same < runs else f"{text}.")
    for name in dict.fromkeys(entry.policy for entry in result.entries if entry.counted != "usage"):
        text = f"{name} does not tell its tokens, so its chunks were counted: where it sends several tokens in one, as "
        made.append(f"{text}one that speculates does, it is faster than its figures.")
    return made


def _place(result: Result, place: Place) -> list[str]:
    here = result.at(place)
    first = here[result.against]
    made = []
    for name, row in here.items():
        if name == result.against:
            continue
        text = f"{where(place)}: {name} wrote {number(row.tokens_per_s)} tokens/s, {ratio(row, 'vs_plain')} times "
        text += f"{first.policy}, which is {FOUND[finding(row, 'vs_plain')]}."
        if row.ttft_ms is not None and first.ttft_ms is not None:
            text += f" Its first token came after {number(row.ttft_ms)} ms in the median, {first.policy}'s after "
            text += f"{number(first.ttft_ms)} ms."
        made.append(text)
    return made

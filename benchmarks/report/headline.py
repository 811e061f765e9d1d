"""The one sentence that a person wants to know: does speculation pay here, by how much, and with which setting."""

from __future__ import annotations

from speckv.benchmarks.bench.plan import OURS, PLAIN
from speckv.benchmarks.report.reading import Place, Result, Row
from speckv.benchmarks.report.recommend import choice
from speckv.benchmarks.report.servers import FOUND, named_as_needed
from speckv.benchmarks.report.verdict import FEW_PROMPTS, Finding, finding, judged
from speckv.benchmarks.report.words import span, where

TIMES = "the tokens per second of plain decoding"


def headline(result: Result) -> tuple[str, Finding | None]:
    """The sentence, and what it says of speculation; None where speculation was not measured.

    The setting is the one that `speckv recommend` gives, so that the two never differ.
    """
    if result.servers:
        return _servers(result)
    rows = {place: here[OURS] for place in result.places if OURS in (here := result.at(place))}
    if not rows:
        return f"Whether speculation pays here is not known: {OURS} was not measured.", None
    chosen = {place: _chosen(result, place, row) for place, row in rows.items()}
    paying = {place: row for place, row in chosen.items() if row is not None}
    text, found = _one(rows, chosen) if len(rows) == 1 else _several(rows, paying)
    if (prompts := min(result.prompts_at(place) for place in rows)) < FEW_PROMPTS:
        text = f"On only {prompts} prompt{'s' if prompts > 1 else ''}, {text[0].lower()}{text[1:]}"
    return text, found


def _chosen(result: Result, place: Place, ours: Row) -> Row | None:
    """The row of the setting to use at a place, where that speculates."""
    gamma, _ = choice(result, place)
    if gamma == 0:
        return None
    return ours if gamma is None else result.at(place)[f"fixed-{gamma}"]


def _one(rows: dict[Place, Row], chosen: dict[Place, Row | None]) -> tuple[str, Finding]:
    (ours,), (best,), (place,) = rows.values(), chosen.values(), rows
    if best is not None:
        return f"Speculation pays here: {_with(best)} writes {_times(best)}, in {where(place)}.", Finding.ABOVE
    found = judged(ours)
    said = {
        Finding.BELOW: "Speculation does not pay here",
        Finding.RESTED: f"Plain decoding is best here, and {OURS} keeps to it",
    }.get(found, "It is not shown that speculation pays here")
    return f"{said}: {OURS} writes {_times(ours)}, in {where(place)}.", found


def _several(rows: dict[Place, Row], paying: dict[Place, Row]) -> tuple[str, Finding]:
    if paying:
        place, best = max(paying.items(), key=lambda one: one[1].vs_plain)
        every = "both" if len(rows) == 2 else f"all {len(rows)}"
        share = every if len(paying) == len(rows) else f"{len(paying)} of {len(rows)}"
        text = f"Speculation pays in {share} settings measured, most in {where(place)}: there {_with(best)} writes "
        return f"{text}{_times(best)}.", Finding.ABOVE
    place, best = max(rows.items(), key=lambda one: one[1].vs_plain)
    found = {judged(row) for row in rows.values()}
    text = f"Speculation pays in none of the {len(rows)} settings measured"
    if found != {Finding.BELOW}:
        text = f"Speculation is not shown to pay in any of the {len(rows)} settings measured"
    text += f": at best, in {where(place)}, {OURS} writes {_times(best)}."
    return text, Finding.BELOW if found == {Finding.BELOW} else Finding.UNCLEAR


def _with(row: Row) -> str:
    return row.policy if row.policy == OURS else f"a fixed γ of {row.policy.removeprefix('fixed-')}"


def _times(row: Row, against: str = TIMES) -> str:
    """1.50 times …, with the interval."""
    text = f"{row.vs_plain:.2f} times {against} "
    if row.single("vs_plain"):
        return f"{text}(a single prompt, so no interval)"
    includes = ", which includes 1" if finding(row, "vs_plain") is Finding.UNCLEAR else ""
    return f"{text}(95 % interval {span(row.interval('vs_plain'))}{includes})"


def _servers(result: Result) -> tuple[str, Finding | None]:
    first = result.against
    others = [(place, row) for place in result.places for name, row in result.at(place).items() if name != first]
    if not others:
        return f"{first} was measured alone, so there is nothing to compare it with.", None
    faster = [one for one in others if finding(one[1], "vs_plain") is Finding.ABOVE]
    place, best = max(faster or others, key=lambda one: one[1].vs_plain)
    found = finding(best, "vs_plain")
    text = f"{best.policy} is {FOUND[found]}{' from' if found is Finding.UNCLEAR else ' than'} {first}"
    if len(result.places) > 1:
        alike = sum(row.policy == best.policy and finding(row, "vs_plain") is found for _, row in others)
        text += f" at {alike} of {len(result.places)} loads, at best"
    text += f" with {where(place).split(', ')[-1]}: "
    times = f"the tokens per second of {first}"
    return f"{text}{_times(best, times)}.", found if named_as_needed(result) and first == PLAIN else None

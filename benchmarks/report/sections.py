"""The page's parts that are text and tables."""

from __future__ import annotations

from speckv.benchmarks.bench.plan import CHAIN, OURS, PLAIN
from speckv.benchmarks.report import servers
from speckv.benchmarks.report.economics import calibration
from speckv.benchmarks.report.headline import headline
from speckv.benchmarks.report.markup import element, facts, table
from speckv.benchmarks.report.reading import Result, Row
from speckv.benchmarks.report.verdict import Finding, details, paragraph
from speckv.benchmarks.report.words import explain, listed, number, percent, ratio, waits, where

COLUMNS = (
    ("policy", "how γ is chosen"),
    ("tokens/s", "tokens per second"),
    ("vs plain", "tokens per second against plain decoding, with 95 % interval"),
    ("vs best fixed", "against the best of plain and the fixed γ, chosen in hindsight, with 95 % interval"),
    ("τ", "tokens per round, that is, per forward of the target"),
    ("mean γ", "draft tokens per round"),
    ("accepted", "share of the draft tokens that became output"),
    ("wasted", "draft tokens that did not"),
    ("siblings", "tokens verified beside the draft's, and the share of them that was right"),
    ("TTFT ms", "median time to the first token"),
    ("ITL 50/95 ms", "median and 95th percentile of the waits between tokens"),
    ("as plain", "outputs that are the same, token by token, as plain decoding's"),
)


def verdict_section(result: Result) -> str:
    """One sentence in large type, then the paragraph in plain words, and each place where there are several."""
    said, found = headline(result)
    shade = {Finding.ABOVE: " pays", Finding.BELOW: " loses"}.get(found, "") if found else ""
    top = f'<div class="verdict{shade}">{element("p", said)}</div>'
    if result.servers:
        return top + f'<ul class="cards">{"".join(element("li", text) for text in servers.sentences(result))}</ul>'
    top += element("p", paragraph(result))
    if len(result.places) == 1:
        return top
    cards = "".join(_card(where(place), text) for place, text in zip(result.places, details(result), strict=True))
    return f'{top}<ul class="cards">{cards}</ul>'


def _card(name: str, text: str) -> str:
    """A place's sentence, with the place, which it begins with, as its heading."""
    said = text.removeprefix(f"{name}: ")
    return f"<li>{element('strong', name)} {element('span', said[:1].upper() + said[1:])}</li>"


def settings_section(result: Result) -> str:
    """What was measured, with what, on what."""
    known = result.settings | result.machine
    said = {str(name): _said(value) for name, value in known.items()}
    said["versions"] = ", ".join(f"{name} {at}" for name, at in result.versions.items()) or "not stored"
    said["revision"] = ", ".join(result.revisions) or result.revision or "not in a git clone"
    said["command"] = result.command or "not stored"
    return f'<div class="wide">{facts("", said)}</div>'


def tables_section(result: Result) -> str:
    """A table per place, then ours by task."""
    made = [element("p", "Wide tables scroll sideways in their boxes.", class_="narrow")]
    cells, columns = (servers.cells, servers.columns(result)) if result.servers else (_cells, COLUMNS)
    for place in result.places:
        rows = [(cells(row), row.policy == OURS) for row in result.at(place).values()]
        made.append(element("h3", where(place)) + table(where(place), columns, rows))
    if result.servers:
        return "".join(made) + _side_by_side(
            facts("The servers", result.servers), facts("The columns", dict(columns[1:]))
        )
    policies = dict.fromkeys(row.policy for row in result.rows)
    explained = facts("The policies", {policy: explain(policy) for policy in policies})
    return "".join(made) + _side_by_side(explained, facts("The columns", dict(COLUMNS[2:])))


def by_task_section(result: Result) -> str:
    """Ours by task, a table per place."""
    header = (("task", ""), ("tokens/s", ""), ("vs plain", ""), ("vs best fixed", ""), ("as plain", ""))
    made = []
    for place in result.places:
        ours = [row for row in result.rows if (row.policy, row.place) == (OURS, place) and row.task != "all"]
        if ours:
            title = f"{OURS}, {where(place)}"
            made.append(
                f"<div>{element('h3', title)}{table(title, header, [(_by_task(row), False) for row in ours])}</div>"
            )
    return f'<div class="tables">{"".join(made)}</div>' if made and not result.servers else ""


def _side_by_side(*parts: str) -> str:
    return f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def predictions_section(result: Result) -> str:
    """Calibration in figures, where there is any."""
    found = [(place, calibration(result.entries_at(place, OURS))) for place in result.places]
    rows = [
        ((where(place), str(one.count), percent(one.error), f"{one.brier:.3f}"), False) for place, one in found if one
    ]
    header = (
        ("where", ""),
        ("predictions", ""),
        ("mean distance", "of predicted from happened, by bin"),
        ("Brier", ""),
    )
    return element("h3", "Predicted probabilities") + table("Predicted probabilities", header, rows) if rows else ""


def siblings_section(result: Result) -> str:
    """What siblings brought, and what the same decoding reached without them where that was measured."""
    rows = []
    for place in result.places:
        here = result.at(place)
        if (ours := here.get(OURS)) is None or not ours.siblings:
            continue
        rounds = sum(len(entry.gammas) for entry in result.entries_at(place, OURS))
        counts = (
            str(ours.siblings),
            f"{ours.sibling_hits} ({percent(ours.sibling_hits / ours.siblings)})",
            str(rounds),
        )
        without = number(here[CHAIN].tokens_per_s) if CHAIN in here else "–"
        rows.append(((where(place), *counts, number(ours.tokens_per_s), without), False))
    header = (
        ("where", ""),
        ("siblings", "tokens verified beside the draft's"),
        ("right", "of these; at most one a round"),
        ("rounds", ""),
        ("tokens/s", "with siblings"),
        ("without", f"tokens/s of {CHAIN}, where it was measured"),
    )
    return element("h3", "What siblings brought") + table("What siblings brought", header, rows) if rows else ""


def agreement_section(result: Result) -> str:
    """How far plain decoding of the frameworks is the same."""
    if not result.agreement:
        return element("p", "Only one framework was measured, so there is no other to agree with.", class_="absent")
    header = (("frameworks", ""), ("target", ""), ("same outputs", ""), ("tokens before the first difference", ""))
    rows = [
        (
            (
                listed(one.frameworks),
                one.regime,
                f"{one.identical} of {one.prompts}",
                f"{one.tokens_alike} of {one.tokens}",
            ),
            False,
        )
        for one in result.agreement
    ]
    text = (
        "Plain decoding of the same prompts. In float32 it should be the same; in lower precision each framework's "
        "kernels round differently, so near-ties between two tokens fall apart, and all that follows differs."
    )
    return element("p", text) + table("Agreement between frameworks", header, rows)


def skipped_section(result: Result) -> str:
    """What was not measured, and why."""
    if not result.skipped:
        return element("p", "Nothing that was asked for was left out.")
    return f"<ul>{''.join(element('li', f'{name}, {of}: {reason}') for name, of, reason in result.skipped)}</ul>"


def _cells(row: Row) -> tuple[str, ...]:
    share = percent(row.accepted / row.drafted) if row.drafted else "–"
    cells = (row.policy, number(row.tokens_per_s), ratio(row, "vs_plain"), ratio(row, "vs_best_fixed"))
    cells = ("plain", cells[1], "1", cells[3]) if row.policy == PLAIN else cells
    return (
        *cells,
        "–" if row.tau is None else f"{row.tau:.2f}",
        "–" if row.policy == PLAIN or row.mean_gamma is None else f"{row.mean_gamma:.1f}",
        share,
        str(row.wasted),
        f"{row.siblings} ({percent(row.sibling_hits / row.siblings)})" if row.siblings else "–",
        "–" if row.ttft_ms is None else number(row.ttft_ms),
        waits(row),
        f"{row.identical}/{row.runs}",
    )


def _by_task(row: Row) -> tuple[str, ...]:
    ratios = (ratio(row, "vs_plain"), ratio(row, "vs_best_fixed"))
    return row.task, number(row.tokens_per_s), *ratios, f"{row.identical}/{row.runs}"


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {of}" for name, of in value.items())
    return str(round(value, 4)) if isinstance(value, float) else str(value)

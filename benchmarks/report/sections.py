"""The page's parts that are text and tables. Whatever comes from the result is escaped here or in ``element``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from speckv.benchmarks.bench.plan import OURS, PLAIN
from speckv.benchmarks.report import servers
from speckv.benchmarks.report.economics import calibration
from speckv.benchmarks.report.reading import Result, Row
from speckv.benchmarks.report.verdict import details, paragraph
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


UNBROKEN = re.compile(r"[0-9.]+–[0-9.]+|γ = [0-9]+|[0-9]+ %")
"""Figures that a line must not break in."""


def element(tag: str, text: object, **attributes: str) -> str:
    """An element that holds ``text`` and nothing else."""
    given = "".join(f' {name.rstrip("_")}="{escape(value)}"' for name, value in attributes.items())
    inner = escape(str(text))
    if tag != "title":  # which holds no elements
        inner = UNBROKEN.sub(r'<span class="n">\g<0></span>', inner)
    return f"<{tag}{given}>{inner}</{tag}>"


def verdict_section(result: Result) -> str:
    """The paragraph in plain words, then each place in a sentence where there are several."""
    if result.servers:
        return f'<div class="verdict">{"".join(element("p", text) for text in servers.sentences(result))}</div>'
    made = f'<div class="verdict">{element("p", paragraph(result))}</div>'
    if len(result.places) > 1:
        made += f"<ul>{''.join(element('li', text) for text in details(result))}</ul>"
    return made


def settings_section(result: Result) -> str:
    """What was measured, with what, on what."""
    facts = [(str(name), _said(value)) for name, value in result.settings.items()]
    facts += [(str(name), _said(value)) for name, value in result.machine.items()]
    facts += [("versions", ", ".join(f"{name} {at}" for name, at in result.versions.items()) or "not stored")]
    facts += [
        ("revision", ", ".join(result.revisions) or result.revision or "not in a git clone"),
        ("command", result.command or "not stored"),
    ]
    return f"<dl>{''.join(element('dt', name) + element('dd', value) for name, value in facts)}</dl>"


def tables_section(result: Result) -> str:
    """A table per place, then ours by task."""
    made = [element("p", "Wide tables scroll sideways in their boxes.", class_="narrow")]
    cells, columns = (servers.cells, servers.columns(result)) if result.servers else (_cells, COLUMNS)
    for place in result.places:
        rows = [(cells(row), row.policy == OURS) for row in result.at(place).values()]
        made.append(element("h3", where(place)) + table(where(place), columns, rows))
    if result.servers:
        return "".join(made) + _facts("The servers", result.servers) + _facts("The columns", dict(columns[1:]))
    by_task = [(_by_task(row), False) for row in result.rows if row.policy == OURS and row.task != "all"]
    if by_task:
        header = (
            ("task", ""),
            ("where", ""),
            ("tokens/s", ""),
            ("vs plain", ""),
            ("vs best fixed", ""),
            ("as plain", ""),
        )
        title = f"{OURS}, by task"
        made.append(element("h3", title) + table(title, header, by_task))
    return "".join(made) + _policies(result)


def table(title: str, header: Sequence[tuple[str, str]], rows: Iterable[tuple[Sequence[str], bool]]) -> str:
    """A table in a box of its own to scroll in; ``header`` has (text, tooltip), a row (cells, is it ours)."""
    rows = list(rows)
    heads = "".join(
        element("th", text, scope="col", **({"title": tip} if tip else {}), **_text(rows[0][0][at] if rows else ""))
        for at, (text, tip) in enumerate(header)
    )
    body = ""
    for cells, ours in rows:
        inner = element("th", cells[0], scope="row", title=cells[0])
        inner += "".join(element("td", cell, **_text(cell)) for cell in cells[1:])
        opening = '<tr class="ours">' if ours else "<tr>"
        body += f"{opening}{inner}</tr>"
    opening = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
    return f"{opening}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


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


def _text(cell: str) -> dict[str, str]:
    """What aligns words left; figures are on the right."""
    return {"class_": "text"} if cell[:1].isalpha() else {}


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
    return row.task, where(row.place), number(row.tokens_per_s), *ratios, f"{row.identical}/{row.runs}"


def _policies(result: Result) -> str:
    policies = dict.fromkeys(row.policy for row in result.rows)
    return _facts("The policies", {policy: explain(policy) for policy in policies}) + _facts(
        "The columns", dict(COLUMNS[2:])
    )


def _facts(title: str, facts: Mapping[str, str]) -> str:
    inner = "".join(element("dt", name) + element("dd", text) for name, text in facts.items())
    return f"{element('h3', title)}<dl>{inner}</dl>"


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {of}" for name, of in value.items())
    return str(round(value, 4)) if isinstance(value, float) else str(value)

"""Elements, tables and lists of the page. Whatever comes from a result is escaped here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

FEW_COLUMNS = 7
"""Up to so many a table is not drawn out over the whole of a wide screen."""

UNBROKEN = re.compile(r"[0-9.]+–[0-9.]+|γ = [0-9]+|[0-9]+ %")
"""Figures that a line must not break in."""


def element(tag: str, text: object, **attributes: str) -> str:
    """An element that holds ``text`` and nothing else."""
    given = "".join(f' {name.rstrip("_")}="{escape(value)}"' for name, value in attributes.items())
    inner = escape(str(text))
    if tag != "title":  # which holds no elements
        inner = UNBROKEN.sub(r'<span class="n">\g<0></span>', inner)
    return f"<{tag}{given}>{inner}</{tag}>"


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
    size = "scroll small" if len(header) <= FEW_COLUMNS else "scroll"
    opening = f'<div class="{size}" tabindex="0" role="region" aria-label="{escape(title)}">'
    return f"{opening}<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"


def _text(cell: str) -> dict[str, str]:
    """What aligns words left; figures are on the right."""
    return {"class_": "text"} if cell[:1].isalpha() else {}


def facts(title: str, known: Mapping[str, str]) -> str:
    """Names with what they mean or are, under ``title`` if there is one."""
    inner = "".join(element("dt", name) + element("dd", text) for name, text in known.items())
    return f"{element('h3', title) if title else ''}<dl>{inner}</dl>"

"""One page of a result, complete in itself: no script, no address, its plots inlined; and the plots as files."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import Path

from speckv.benchmarks.report import plot_costs, plot_rounds, plot_siblings, plot_speed
from speckv.benchmarks.report.look import STYLE
from speckv.benchmarks.report.markup import element
from speckv.benchmarks.report.reading import Result
from speckv.benchmarks.report.sections import (
    agreement_section,
    by_task_section,
    predictions_section,
    settings_section,
    siblings_section,
    skipped_section,
    tables_section,
    verdict_section,
)
from speckv.benchmarks.report.style import Absent, Drawn, Plot
from speckv.controller.files import write_whole

PAGE = "index.html"
FIRST, SIBLINGS = "Speed", "Beside the draft"
"""The plots that stand before all tables, and those of trees."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing on the page may load or run anything, even if an escape were forgotten."""


def write(result: Result, folder: Path) -> list[Path]:
    """Write the page and its plots to ``folder``; what was written, the page first."""
    groups = plots(result)
    files: dict[str, bytes | str] = {}
    for drawn in groups.values():
        for plot in drawn:
            if isinstance(plot, Plot):
                files |= {f"{plot.name}.svg": plot.svg, f"{plot.name}.png": plot.png}
    for name, content in files.items():
        write_whole(folder / name, content)
    write_whole(folder / PAGE, page(result, groups))  # last, since it names the others
    return [folder / PAGE, *(folder / name for name in files)]


def plots(result: Result) -> dict[str, list[Drawn]]:
    """All plots by section; of servers elsewhere, whose rounds are not known, only those of speed."""
    made = {
        FIRST: plot_speed.speed(result) + plot_speed.concurrencies(result),
        "By task": plot_speed.ratios(result),
    }
    if result.servers:
        return made
    return made | {
        "Inside a request": plot_rounds.one_request(result) + plot_rounds.by_position(result),
        SIBLINGS: plot_siblings.by_depth(result),
        "Predictions": plot_rounds.reliability(result),
        "Costs": plot_costs.costs(result),
        "Bound": plot_costs.bounds(result),
    }


def page(result: Result, groups: dict[str, list[Drawn]]) -> str:
    """The page as HTML."""
    beneath = {"By task": by_task_section, SIBLINGS: siblings_section, "Predictions": predictions_section}
    sections = {}
    for name, drawn in groups.items():
        sections[name] = _plots(drawn) + (beneath[name](result) if name in beneath else "")
        if name == FIRST:
            sections["Figures"] = tables_section(result)
    if not result.servers:
        sections["Agreement between frameworks"] = agreement_section(result)
    sections["Left out"] = skipped_section(result)
    sections["What was measured"] = settings_section(result)
    title = f"SpecKV, measured on {result.pair or 'an unnamed pair'}"
    links = "".join(f'<li><a href="#s{at}">{escape(name)}</a></li>' for at, name in enumerate(sections))
    body = "".join(
        f'<section id="s{at}">{element("h2", name)}{content}</section>'
        for at, (name, content) in enumerate(sections.items())
    )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head += f"{element('title', title)}<style>{STYLE}</style>"
    made = "Made by speckv report. Intervals are 95 % intervals over prompts, paired between policies."
    return (
        f'<!DOCTYPE html>\n<html lang="en-GB"><head>{head}</head>\n<body><header>{element("h1", title)}</header>\n'
        f'<main>{verdict_section(result)}<nav aria-label="Contents"><ul>{links}</ul></nav>\n{body}</main>\n'
        f"<footer>{element('p', made)}</footer></body></html>\n"
    )


def _plots(drawn: list[Drawn]) -> str:
    made = [plot for plot in drawn if isinstance(plot, Plot)]
    captions = Counter(plot.caption for plot in made)
    shared = "".join(element("p", text) for text, count in captions.items() if count > 1)
    figures = "".join(_figure(plot, captions[plot.caption] == 1) for plot in made)
    left_out = "".join(
        element("p", f"Left out: {one.title}: {one.why}", class_="absent") for one in drawn if isinstance(one, Absent)
    )
    grid = "plots lone" if len(made) == 1 else "plots"
    return (f'{shared}<div class="{grid}">{figures}</div>' if figures else "") + left_out


def _figure(plot: Plot, captioned: bool) -> str:
    """A plot with its caption, unless that is one which several share and which therefore stands above them."""
    files = " · ".join(f'<a href="{plot.name}.{kind}">{kind.upper()}</a>' for kind in ("svg", "png"))
    caption = f'<figcaption>{element("p", plot.caption) if captioned else ""}<p class="files">{files}</p></figcaption>'
    return f"<figure>{element('h3', plot.title)}{plot.inlined()}{caption}</figure>\n"

"""How a plot is drawn: narrow, in text that can be read on a phone, as SVG and PNG that come out the same each time."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any

from speckv.benchmarks.report.words import shortened

WIDTH = 4.6
"""Inches. As wide as a phone, where the page shows a plot at about its own size."""

INK = "#1c1d1f"
"""Text, axes and whiskers. In the page it becomes the colour of the text, which is light in a dark scheme."""

# Okabe and Ito's palette, told apart with any colour vision; markers and hatches differ too.
LOOKS = {
    "plain": ("#999999", "", "o"),
    "fixed-2": ("#56B4E9", "///", "v"),
    "fixed-4": ("#0072B2", "\\\\\\", "^"),
    "fixed-8": ("#009E73", "---", "s"),
    "hf-default": ("#F0E442", "xxx", "D"),
    "paper": ("#CC79A7", "...", "P"),
    "speckv": ("#D55E00", "", "*"),
    "speckv-step": ("#E69F00", "++", "X"),
    "speckv-chain": ("#CC79A7", "||", "p"),
}
OTHERS = (("#E69F00", "oo", "<"), ("#56B4E9", "**", ">"), ("#009E73", "||", "p"), ("#CC79A7", "\\\\", "h"))
SERIES = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", "-."), ("#CC79A7", "D", ":"))
ORANGE, BLUE = "#D55E00", "#0072B2"
EDGE = {"markeredgecolor": INK, "markeredgewidth": 0.7}


@dataclass(frozen=True)
class Plot:
    """A drawn plot: its file's ``name``, what it shows (``alt``) and how to read it (``caption``)."""

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes
    png: bytes

    def inlined(self) -> str:
        """The SVG as an element of a page: named for screen readers, its ids its own, no address in it."""
        text = self.svg.decode()
        text = text[text.index("<svg") :]
        for dropped in (r"<metadata>.*?</metadata>", r"<!--.*?-->", r"<style[^>]*>.*?</style>"):
            text = re.sub(dropped, "", text, flags=re.DOTALL)
        text = text.replace("xlink:href=", "href=").replace(INK, "currentColor")
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.name}-", text)
        box = re.search(r'viewBox="([^"]*)"', text)
        title = f"{self.name}-title"
        opening = f'<svg viewBox="{box[1] if box else ""}" role="img" aria-labelledby="{title}">'
        return re.sub(
            r"<svg[^>]*>", lambda _: f'{opening}<title id="{title}">{escape(self.alt)}</title>', text, count=1
        ).strip()


@dataclass(frozen=True)
class Absent:
    """A plot that the result has no data for, and why."""

    title: str
    why: str


Drawn = Plot | Absent

BAR = 0.33
"""Inches of height for a bar with its name."""


def drawn(name: str, title: str, caption: str, alt: str, height: float, draw: Callable[[Any], None]) -> Plot:
    """The plot that ``draw`` puts into a figure of ``height`` inches; ``name`` must differ between plots of a page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: dict[str, Any] = {"font.family": ["DejaVu Sans"], "font.size": 11, "axes.labelsize": 11}
    settings |= {"text.parse_math": False, "svg.fonttype": "path", "svg.hashsalt": name, "hatch.linewidth": 0.6}
    settings |= {"axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11, "legend.fontsize": 10}
    settings |= {"axes.titlelocation": "left", "legend.frameon": False, "axes.axisbelow": True}
    settings |= {"figure.dpi": 100, "savefig.dpi": 100, "savefig.bbox": None, "path.simplify": True}
    for part in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "hatch.color"):
        settings[part] = INK
    with mpl.rc_context():
        mpl.rcdefaults()  # a reader's matplotlibrc must not change what is drawn
        parameters: Any = mpl.rcParams
        parameters.update(settings)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        vector, raster = io.BytesIO(), io.BytesIO()
        figure.savefig(vector, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # where everything is was settled by the first drawing
        figure.savefig(raster, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return Plot(name, title, caption, alt, vector.getvalue(), raster.getvalue())


def look(policy: str) -> tuple[str, str, str]:
    """Colour, hatch and marker of a policy, the same in every plot."""
    return LOOKS.get(policy) or OTHERS[sum(map(ord, policy)) % len(OTHERS)]


def mark(policy: str) -> dict[str, Any]:
    """A policy's marker, as arguments of ``plot``; ours is the largest."""
    colour, _, marker = look(policy)
    size = 12 if marker == "*" else 7
    return {"marker": marker, "color": colour, "markersize": size, "label": drawable(policy, 14), **EDGE}


def drawable(text: str, longest: int = 24) -> str:
    """``text`` with what the plots' font cannot draw replaced, and cut where it would push the plot aside."""
    known = _glyphs()
    return "".join(character if ord(character) in known else "?" for character in shortened(text, longest))


def grid(axes: Any, which: str) -> None:
    """Thin lines to read values off."""
    axes.grid(axis=which, color=INK, alpha=0.18, linewidth=0.6)


def legend(figure: Any, columns: int, **more: Any) -> None:
    """What the marks mean, below the axes."""
    figure.legend(loc="outside lower center", ncols=columns, columnspacing=0.9, **more)


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers only."""
    axis.get_major_locator().set_params(integer=True)


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont("DejaVu Sans")).get_charmap())

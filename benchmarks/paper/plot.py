"""The picture of the examination: what was predicted and recorded, and what it means in tokens per second."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speckv.benchmarks.paper.published import COMPRESSIONS
from speckv.controller.errors import SpecKVError
from speckv.controller.files import write_whole

# Okabe and Ito's palette, told apart with any colour vision.
GREY, ORANGE, SKY, GREEN, BLUE, VERMILION = "#999999", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00"
POLICIES = {
    "Fixed-2": GREY,
    "Fixed-6": SKY,
    "Fixed-8": BLUE,
    "SpecKV": ORANGE,
    "SpecKV, throughput": GREEN,
}
HATCHES = {"SpecKV": "//", "SpecKV, throughput": ".."}
CAUSAL = "previous step, split by prompt"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw ``result`` into ``path``, a .png or .svg; raises SpecKVError on another ending."""
    if path.suffix not in (".png", ".svg"):
        raise SpecKVError(f"{path}: the plot is a .png or .svg file; name one")
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    variants = result["examination"]["variants"]
    with mpl.rc_context(
        {"font.size": 9, "svg.hashsalt": "speckv", "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6), width_ratios=(1, 1.25), layout="constrained")
        _promise(left, variants)
        _throughput(right, variants[CAUSAL]["realised"])
        picture = io.BytesIO()
        kind = path.suffix[1:]
        figure.savefig(picture, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else {"Software": None})
        pyplot.close(figure)
    write_whole(path, picture.getvalue())


def _promise(axes: Any, variants: Mapping[str, Any]) -> None:
    """Gain in tokens per step over Fixed-4, predicted and recorded, one group per variant."""
    for row, variant in enumerate(variants.values()):
        recorded = variant["realised"]["SpecKV"]["overall"]["tokens_per_step_vs_fixed4"]
        predicted = axes.barh(row - 0.19, variant["predicted"]["improvement_pct"], 0.36, color=SKY)
        real = axes.barh(row + 0.19, recorded["pct"], 0.36, color=ORANGE, hatch="//", edgecolor="white", linewidth=0)
        _whisker(axes, recorded, row + 0.19, horizontal=True)
        if row == 0:
            predicted.set_label("predicted by the policy's own model")
            real.set_label("recorded (matched action, 95 % interval)")
    axes.set_yticks(range(len(variants)), list(variants))
    axes.invert_yaxis()
    axes.set_xlabel("tokens per step above Fixed-4, %")
    axes.set_title("SpecKV, objective tokens: the gain in tokens per step", loc="left", fontsize=9)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=1, frameon=False)


def _throughput(axes: Any, realised: Mapping[str, Any]) -> None:
    """Gain in tokens per second over Fixed-4, one group per compression."""
    width = 0.8 / len(POLICIES)
    for number, (policy, colour) in enumerate(POLICIES.items()):
        for group, compression in enumerate(COMPRESSIONS):
            gain = realised[policy]["by_compression"][compression]["vs_fixed4"]
            x = group + (number - (len(POLICIES) - 1) / 2) * width
            bar = axes.bar(
                x,
                gain["pct"],
                0.92 * width,
                color=colour,
                hatch=HATCHES.get(policy),
                edgecolor="white",
                linewidth=0,
            )
            _whisker(axes, gain, x, horizontal=False)
            if group == 0:
                bar.set_label(policy)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(COMPRESSIONS)), COMPRESSIONS)
    axes.set_ylabel("tokens per second above Fixed-4, %")
    axes.set_title(f"Tokens per second ({CAUSAL})", loc="left", fontsize=9)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)


def _whisker(axes: Any, gain: Mapping[str, float], at: float, horizontal: bool) -> None:
    spread = [[gain["pct"] - gain["lower"]], [gain["upper"] - gain["pct"]]]
    style = {"fmt": "none", "ecolor": "black", "elinewidth": 1, "capsize": 2}
    if horizontal:
        axes.errorbar(gain["pct"], at, xerr=spread, **style)
    else:
        axes.errorbar(at, gain["pct"], yerr=spread, **style)

"""Plots of how fast the policies are: tokens per second, ratios by task, and what concurrency does to them."""

from __future__ import annotations

from typing import Any

from speckv.benchmarks.bench.plan import OURS, SERVERS
from speckv.benchmarks.report.reading import Place, Result, Row
from speckv.benchmarks.report.style import BAR, INK, Absent, Drawn, drawable, drawn, grid, legend, look, mark
from speckv.benchmarks.report.words import listed, number, place_slug, slug, where


def speed(result: Result) -> list[Drawn]:
    """Tokens per second by policy, a plot per place."""
    made: list[Drawn] = []
    for index, place in enumerate(result.places):
        here = result.at(place)
        policies = list(here)[::-1]  # bars are drawn from the bottom

        def draw(figure: Any, here: dict[str, Row] = here, policies: list[str] = policies) -> None:
            axes = figure.add_subplot()
            plain = here[result.against].tokens_per_s
            for at, policy in enumerate(policies):
                row = here[policy]
                colour, hatch, _ = look(policy)
                axes.barh(at, row.tokens_per_s, 0.72, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.6)
                low, high = (plain * bound for bound in row.interval("vs_plain"))
                if policy != result.against:
                    _whisker(axes, row.tokens_per_s, at, low, high, "x")
                # In a column of their own, where no line or whisker crosses them.
                value = number(row.tokens_per_s)
                axes.annotate(value, (1.02, at), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
            axes.axvline(plain, color=INK, linewidth=1, linestyle="--")
            axes.set_yticks(range(len(policies)), [drawable(policy, 14) for policy in policies])
            axes.set_xlabel("tokens per second (more is better)")
            axes.margins(x=0.03)
            grid(axes, "x")

        caption = (
            f"Each bar is a server; the dashed line is the speed of {result.against}. "
            if result.servers
            else "Each bar is a way to choose the number of draft tokens; plain writes without a draft model, and the "
            "dashed line is its speed. "
        )
        caption += (
            f"Whiskers: 95 % interval of the ratio to {result.against} on the same prompts, times "
            "its speed. A whisker that crosses the dashed line means that the difference is not shown."
        )
        figures = listed([f"{policy} {number(row.tokens_per_s)}" for policy, row in here.items()])
        alt = f"Bars of tokens per second, {where(place)}: {figures}."
        name = f"speed-{index}-{place_slug(place)}"
        made.append(drawn(name, f"Tokens per second: {where(place)}", caption, alt, BAR * len(here) + 0.8, draw))
    return made


def ratios(result: Result) -> list[Drawn]:
    """Ratio to plain by task, a plot per framework and regime at its lowest concurrency."""
    lowest: dict[tuple[str, str], Place] = {}
    for place in result.places:
        key = place.framework, place.regime
        lowest[key] = min(lowest.get(key, place), place, key=lambda one: one.concurrency)
    made: list[Drawn] = []
    for index, place in enumerate(lowest.values()):
        tasks = list(dict.fromkeys(row.task for row in result.rows if row.place == place))
        by_task = {task: result.at(place, task) for task in tasks}
        others = [policy for policy in by_task["all"] if policy not in (result.against, OURS)]
        title = f"Against {result.named_against}, by task: {where(place)}"
        if not others and OURS not in by_task["all"]:
            made.append(Absent(title, f"only {result.named_against} was measured here."))
            continue

        def draw(figure: Any, by_task: dict[str, dict[str, Row]] = by_task, others: list[str] = others) -> None:
            axes = figure.add_subplot()
            names, named = list(by_task), set[str]()
            for task_at, task in enumerate(names):
                rows = by_task[task]
                if OURS in rows:
                    value, at = rows[OURS].vs_plain, task_at - 0.22
                    _whisker(axes, value, at, *rows[OURS].interval("vs_plain"), "x")
                    axes.plot([value], [at], linestyle="", **_once(OURS, named))
                for order, policy in enumerate(others):
                    if policy in rows:
                        at = task_at + 0.02 + 0.34 * order / max(1, len(others) - 1)
                        axes.plot([rows[policy].vs_plain], [at], linestyle="", **_once(policy, named))
                if task_at:
                    axes.axhline(task_at - 0.5, color=INK, linewidth=0.5, alpha=0.3)
            axes.axvline(1, color=INK, linewidth=1, linestyle="--")
            axes.set_yticks(range(len(names)), [drawable(name, 14) for name in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_xlabel(f"tokens per second against {drawable(result.against, 14)}")
            axes.margins(x=0.08)
            grid(axes, "x")
            legend(figure, 3, handletextpad=0.2)

        caption = f"Right of the dashed line is faster than {result.named_against}. “all” pools the tasks."
        if OURS in by_task["all"]:
            caption += (
                " The star is speckv, with its 95 % interval; the smaller marks are the others, without theirs, so "
                "that the plot stays readable. A star without whiskers rests on a single prompt."
            )
        told = [f"{task} {rows[OURS].vs_plain:.2f}" for task, rows in by_task.items() if OURS in rows]
        alt = f"Ratios to {result.named_against} by task, {where(place)}. {OURS}: {listed(told) or 'not measured'}."
        height = 0.62 * len(tasks) + 0.75 + 0.26 * -(-(len(others) + 1) // 3)
        made.append(drawn(f"ratio-{index}-{place_slug(place)}", title, caption, alt, height, draw))
    return made


def concurrencies(result: Result) -> list[Drawn]:
    """Tokens per second by concurrency, a plot per regime measured in SGLang, or in servers elsewhere."""
    places = [place for place in result.places if place.framework in ("sglang", SERVERS)]
    title = f"Tokens per second by concurrency in {SERVERS if result.servers else 'SGLang'}"
    if not places:
        return [Absent(title, "SGLang was not measured in this result.")]
    made: list[Drawn] = []
    for index, regime in enumerate(dict.fromkeys(place.regime for place in places)):
        here = sorted((place for place in places if place.regime == regime), key=lambda place: place.concurrency)
        sizes = [place.concurrency for place in here]
        if len(here) < 2:
            made.append(Absent(f"{title}, {regime}", f"only one concurrency, {sizes[0]}, was measured."))
            continue
        policies = list(dict.fromkeys(policy for place in here for policy in result.at(place)))

        def draw(figure: Any, here: list[Place] = here, policies: list[str] = policies) -> None:
            axes = figure.add_subplot()
            axes.set_xscale("log", base=2)
            for order, policy in enumerate(policies):
                rows = [row for place in here if (row := result.at(place).get(policy))]
                # A few per cent apart, since whiskers at the same concurrency would cover each other.
                across = [row.concurrency * 2 ** (0.06 * (order - (len(policies) - 1) / 2)) for row in rows]
                axes.plot(across, [row.tokens_per_s for row in rows], linewidth=1.8, **mark(policy))
                for x, row in zip(across, rows, strict=True):
                    if policy != result.against:
                        plain = result.at(row.place)[result.against].tokens_per_s
                        low, high = (plain * bound for bound in row.interval("vs_plain"))
                        _whisker(axes, row.tokens_per_s, x, low, high, "y")
            axes.set_xticks([place.concurrency for place in here], [str(place.concurrency) for place in here])
            axes.minorticks_off()
            axes.set_ylim(bottom=0)
            axes.set_xlabel("requests at a time")
            axes.set_ylabel("tokens per second, all requests")
            grid(axes, "y")
            legend(figure, 3)

        caption = (
            "The more requests a server answers at a time, the fuller each forward of the target is already, and the "
            "less there is to gain from verifying several tokens at once. "
        )
        caption += "" if result.servers else "Where speckv meets plain, it has stopped drafting. "
        caption += f"Whiskers: 95 % interval of the ratio to {result.against}, times its speed."
        alt = f"Lines of tokens per second over concurrency, {regime}."
        for policy in list(result.servers)[1:] or [OURS]:
            told = [
                f"at {place.concurrency}, {result.at(place)[policy].vs_plain:.2f} times {result.against}"
                for place in here
                if policy in result.at(place)
            ]
            alt += f" {policy}: {listed(told) or 'not measured'}."
        made.append(drawn(f"concurrency-{index}-{slug(regime)}", f"{title}, {regime}", caption, alt, 4.1, draw))
    return made


def _whisker(axes: Any, value: float, at: float, low: float, high: float, direction: str) -> None:
    spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
    style = {"fmt": "none", "ecolor": INK, "elinewidth": 1.3, "capsize": 3}
    if direction == "x":
        axes.errorbar(value, at, xerr=spread, **style)
    else:
        axes.errorbar(at, value, yerr=spread, **style)


def _once(policy: str, named: set[str]) -> dict[str, Any]:
    """The policy's look, with a name for the legend the first time only."""
    style = mark(policy)
    if policy in named:
        del style["label"]
    named.add(policy)
    return style

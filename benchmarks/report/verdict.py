"""Does speculation pay? Said per place from the interval of the ratio to plain decoding, and for all in a paragraph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from speckv.benchmarks.bench.plan import OURS, PLAIN
from speckv.benchmarks.report.economics import BAD_COSTS, cost_fit, economics, round_in_plain_steps
from speckv.benchmarks.report.reading import Place, Result, Row
from speckv.benchmarks.report.words import fixed_gamma, listed, number, percent, ratio, span, where

UNEXPLAINED = 1.15
"""Times the measured ratio from which a predicted one does not explain it."""

FEW_PROMPTS = 8
"""Below it a resampled interval is too narrow to be relied on."""


RESTS = 0.05
"""Draft tokens a round below which speckv is said to have decoded plainly."""


class Finding(Enum):
    """What the 95 % interval of a ratio says; of a place also that a lead is not speculation's."""

    ABOVE = "above"
    BELOW = "below"
    UNCLEAR = "unclear"
    RESTED = "rested"


@dataclass(frozen=True)
class Verdict:
    """A place's finding on speckv against plain, and the row it rests on; None where speckv was not measured."""

    place: Place
    finding: Finding | None
    row: Row | None
    prompts: int

    @property
    def sentence(self) -> str:
        """The finding with its figures."""
        if self.row is None:
            return f"{where(self.place)}: {OURS} was not measured."
        row = self.row
        said = {
            Finding.ABOVE: "speculation pays",
            Finding.BELOW: "speculation does not pay",
            Finding.UNCLEAR: "it is not shown whether speculation pays",
            Finding.RESTED: f"{OURS} drafted next to nothing, so its lead on plain decoding is not speculation's",
        }[judged(row)]
        text = f"{where(self.place)}: {said}. {OURS} wrote {number(row.tokens_per_s)} tokens/s, {row.vs_plain:.2f} "
        text += "times plain decoding ("
        if row.single("vs_plain"):
            text += "on a single prompt, so without an interval)"
        else:
            text += f"95 % interval {span(row.interval('vs_plain'))}"
            text += ", which includes 1)" if self.finding is Finding.UNCLEAR else ")"
        return text + against_best(row) + "."


def finding(row: Row, key: str) -> Finding:
    """Whether a ratio is above or below 1 with its whole interval; unclear with a single prompt, which has none."""
    low, high = row.interval(key)
    if row.single(key):
        return Finding.UNCLEAR
    return Finding.ABOVE if low > 1 else Finding.BELOW if high < 1 else Finding.UNCLEAR


def judged(row: Row) -> Finding:
    """What the ratio to plain decoding says of our speculation at a place."""
    found = finding(row, "vs_plain")
    rests = row.mean_gamma is not None and row.mean_gamma < RESTS
    return Finding.RESTED if found is Finding.ABOVE and rests else found


def verdicts(result: Result) -> list[Verdict]:
    """One per place, in the order measured."""
    made = []
    for place in result.places:
        row = result.at(place).get(OURS)
        made.append(Verdict(place, judged(row) if row else None, row, result.prompts_at(place)))
    return made


def against_best(row: Row) -> str:
    """A clause on the best constant choice, which may be plain decoding itself."""
    if row.best_fixed == PLAIN:
        return "; of plain decoding and the fixed γ measured, plain was the fastest"
    gamma = fixed_gamma(row.best_fixed)
    best = f"γ = {gamma}" if gamma else row.best_fixed
    said = {Finding.ABOVE: "faster than", Finding.BELOW: "slower than", Finding.UNCLEAR: "not clearly different from"}
    text = f", and {said[finding(row, 'vs_best_fixed')]} the best fixed choice in hindsight, {best}"
    return f"{text}: {ratio(row, 'vs_best_fixed')}"


def paragraph(result: Result) -> str:
    """All places in plain words; the figures of each are in its own sentence."""
    found = verdicts(result)
    known = [one for one in found if one.finding]
    if not known:
        return f"{OURS} was not measured, so this page cannot say whether its speculation pays here."
    if len(known) == 1:
        text = f"{known[0].sentence} {_reason(result, known[0])}".strip()
    else:
        text = f"Of {len(known)} settings measured, {_counted(known)}. "
        low, *_, high = sorted((one.row for one in known if one.row), key=lambda row: row.vs_plain)
        text += f"It wrote between {ratio(low, 'vs_plain')} times the tokens per second of plain decoding, in "
        text += f"{where(low.place)}, "
        text += f"and {ratio(high, 'vs_plain')} times, in {where(high.place)}; in brackets, 95 % intervals. "
        low, *_, high = sorted((one.row for one in known if one.row), key=lambda row: row.vs_best_fixed)
        text += "Against the best of plain decoding and the fixed γ, chosen in hindsight, it was between "
        text += f"{ratio(low, 'vs_best_fixed')} and {ratio(high, 'vs_best_fixed')}."
    if fewest := [one.prompts for one in known if one.prompts < FEW_PROMPTS]:
        prompts = "1 prompt" if min(fewest) == 1 else f"{min(fewest)} prompts"
        text += f" With {prompts} the intervals are themselves uncertain; measure more before relying on them."
    return text


def details(result: Result) -> list[str]:
    """A sentence per place, with the reason where it is not shown that speculation pays."""
    return [f"{one.sentence} {_reason(result, one)}".strip() for one in verdicts(result)]


def _reason(result: Result, one: Verdict) -> str:
    return why(result, one.place) if one.finding in (Finding.BELOW, Finding.UNCLEAR) else ""


def _counted(known: Sequence[Verdict]) -> str:
    counts = Counter(one.finding for one in known)
    said = {
        Finding.ABOVE: "speculation with speckv pays",
        Finding.BELOW: "it does not pay",
        Finding.UNCLEAR: "it is not shown either way",
        Finding.RESTED: "it drafts next to nothing",
    }
    return listed(
        [
            f"{text} in {counts[which] or 'none'}"
            for which, text in said.items()
            if counts[which] or which is Finding.ABOVE
        ]
    )


def why(result: Result, place: Place) -> str:
    """Why a place is as it is, from calibrated costs and acceptance, or else from what the rounds took."""
    rounds = _rounds(result, place)
    if found := economics(result, place):
        rows, growth = found.verify_growth
        text = f"Why: a draft token takes {found.draft_share:.2f} of a plain step, a verify of {rows} rows takes "
        text += (
            f"{growth:.2f} of a plain step, and {percent(found.acceptance)} of the draft tokens judged were accepted. "
        )
        text += f"From these figures the best fixed γ, {found.best[0]}, would bring {found.best[1]:.2f} times plain"
        text += f"; even a draft whose tokens are all accepted would bring {found.perfect[1]:.2f} at most."
        if found.best[1] > UNEXPLAINED * max(row.vs_plain for row in result.at(place).values()):
            text += f" That is more than was measured, where {rounds}. "
            fit = cost_fit(result, place.regime)
            if fit is not None and fit.error <= BAD_COSTS:
                text += "Drafts and verifies themselves took what they should, so the time went elsewhere: prefills, "
                text += "or the loop around the forwards."
            else:
                text += "The costs do not hold there: calibrate again on an idle machine with speckv calibrate."
        return text
    return f"Why: {rounds}."


def _rounds(result: Result, place: Place) -> str:
    """What the rounds of one policy brought and took, the best of the fixed γ if there is one."""
    if result.servers:
        return "these servers' rounds are not known, as the OpenAI API does not tell them"
    drafting = [row for row in result.at(place).values() if row.drafted]
    if not drafting:
        return "nothing was drafted there, so there is no time of a round to explain it with"
    row = max(drafting, key=lambda one: (fixed_gamma(one.policy) is not None, one.vs_plain))
    text = f"a round of {row.policy} brought {row.tau or 0:.2f} tokens and took as long as plain decoding takes for "
    return text + f"{round_in_plain_steps(row):.2f}"

"""Which settings to use at each place that was measured; plain decoding where nothing else is shown to be faster."""

from __future__ import annotations

import shlex
from math import ceil

from speckv.benchmarks.bench.plan import CHAIN, OURS, PLAIN, REGIMES
from speckv.benchmarks.prompts import load_prompts
from speckv.benchmarks.report.commands import commands
from speckv.benchmarks.report.economics import (
    BAD_CALIBRATION,
    BAD_COSTS,
    LEAST_PREDICTIONS,
    LEAST_STEPS,
    calibration,
    cost_fit,
)
from speckv.benchmarks.report.reading import Place, Result, Row
from speckv.benchmarks.report.servers import check_names
from speckv.benchmarks.report.verdict import FEW_PROMPTS, Finding, finding, judged, why
from speckv.benchmarks.report.words import at_once, fixed_gamma, listed, number, percent, ratio, where

SAME = 0.01
"""A ratio this close to 1 is not worth more prompts."""

MOST_PROMPTS = 1000


def recommendations(result: Result) -> list[str]:
    """A paragraph per place, then what concerns all of them; SpecKVError where servers are not named as needed."""
    check_names(result)
    made = [_place(result, place) for place in result.places]
    skipped = [f"Not measured: {name}, {of}: {reason}" for name, of, reason in result.skipped]
    return made + [text for text in (_loads(result), _differences(result), "\n".join(skipped)) if text]


def _place(result: Result, place: Place) -> str:
    here = result.at(place)
    lines = [f"{where(place)}\n{'-' * len(where(place))}"]
    if (ours := here.get(OURS)) is None:
        return f"{lines[0]}\n{OURS} was not measured here: run speckv bench with --policy plain --policy {OURS}."
    gamma, said = choice(result, place)
    lines += [text for text in (said, commands(result, place, gamma)) if text]
    for note in (_few, _siblings, _outputs, _predictions, _costs):
        if text := note(result, place, ours):
            lines.append(text)
    return "\n".join(lines)


STOCK_CHOICES = {
    "vs_hf_default": "transformers' own default",
    "vs_sglang_adaptive": "SGLang's own --speculative-adaptive without a speckv object",
}


def choice(result: Result, place: Place) -> tuple[int | None, str]:
    """The γ to use (None lets speckv choose, 0 is plain decoding), and the reason with its figures.

    Plain decoding where speckv drafted next to nothing and is ahead all the same: that is not speculation's doing.
    Else speckv where its whole interval against plain is above 1, unless a fixed γ that also pays is better than it
    beyond its interval; else a fixed γ whose own interval is above 1; else plain decoding.
    """
    here = result.at(place)
    ours = here[OURS]
    found = finding(ours, "vs_plain")
    best = here.get(ours.best_fixed)
    gamma = fixed_gamma(ours.best_fixed)
    pays = best is not None and gamma is not None and finding(best, "vs_plain") is Finding.ABOVE
    beaten = finding(ours, "vs_best_fixed") is Finding.BELOW
    measured = f"{ours.tokens_per_s:.2f} tokens/s, {ratio(ours, 'vs_plain')} times plain"
    if best is not None and gamma and pays and (beaten or found is not Finding.ABOVE):
        text = f"Use γ = {gamma}: {number(best.tokens_per_s)} tokens/s, {ratio(best, 'vs_plain')} times plain. "
        text += f"{OURS} reached {measured}, and {ratio(ours, 'vs_best_fixed')} of that fixed γ"
        text += ", so the fixed γ is better beyond its interval." if beaten else ", whose gain is not shown."
        return (
            gamma,
            f"{text} It was chosen in hindsight on these prompts; on others it may be another γ.{_stock(ours)}",
        )
    if judged(ours) is Finding.RESTED:
        text = (
            f"Use plain decoding: {OURS} drafted nothing here, so that it wrote {measured} is not speculation's doing"
        )
        return 0, f"{text}. Where the load varies, {OURS} does as well here, and drafts at lower load where that pays."
    if found is Finding.ABOVE and not (beaten and ours.best_fixed == PLAIN):
        text = f"Use {OURS}: {measured}"
        if gamma:
            clear = finding(ours, "vs_best_fixed")
            text += f", and {ratio(ours, 'vs_best_fixed')} of the best fixed γ in hindsight, {gamma}"
            text += ", which is not clearly different" if clear is Finding.UNCLEAR else ""
        return None, f"{text}.{_stock(ours)}"
    if found is Finding.BELOW:
        text = f"Speculation does not pay here: {OURS} wrote {measured}."
        return 0, f"{text} Use plain decoding.{_stock(ours)}\n{why(result, place)}"
    text = f"It is not shown that speculation pays here: {OURS} wrote {measured}"
    text += ", and one prompt has no interval." if ours.single("vs_plain") else ", and the interval includes 1."
    return 0, f"{text} {_more(ours, result.prompts_at(place))}{_stock(ours)}\n{why(result, place)}"


def _more(ours: Row, prompts: int) -> str:
    """How many prompts would settle it, if the ratio stays: an interval narrows with the root of their number."""
    low, high = ours.interval("vs_plain")
    gap = abs(ours.vs_plain - 1)
    if gap < SAME:
        return "The two are about level: use plain decoding, which needs no draft model."
    needed = ceil(1.2 * max(1, prompts) * ((high - low) / 2 / gap) ** 2)
    if needed > MOST_PROMPTS:
        return "More prompts than is sensible would be needed to tell them apart: use plain decoding."
    count = max(needed, 2 * prompts, FEW_PROMPTS)
    own = " --prompts FILE, with as many of your own" if count > len(load_prompts("heldout")) else ""
    return f"To settle it measure more prompts (--count {count}{own}); until then use plain decoding."


def _stock(ours: Row) -> str:
    """A warning where a framework's own choice is faster than ours."""
    said = ""
    for key, whose in STOCK_CHOICES.items():
        if getattr(ours, key) is not None and finding(ours, key) is Finding.BELOW:
            said += f" Against {whose} {OURS} reached {ratio(ours, key)}: that was faster."
    return said


def _few(result: Result, place: Place, ours: Row) -> str:
    prompts = result.prompts_at(place)
    if prompts >= FEW_PROMPTS:
        return ""
    return f"Prompts measured: only {prompts}, so the interval itself is uncertain; measure {FEW_PROMPTS} or more."


def _siblings(result: Result, place: Place, ours: Row) -> str:
    """What tokens beside the draft's brought, where there are any and it was also measured without them."""
    chain = result.at(place).get(CHAIN)
    if chain is None or not ours.siblings:
        return ""
    right = percent(ours.sibling_hits / ours.siblings)
    text = f"Siblings: {ours.siblings} tokens were verified beside the draft's, of which {right} were right; without "
    text += f"them ({CHAIN}) it wrote {number(chain.tokens_per_s)} tokens/s, with them {number(ours.tokens_per_s)}."
    return text if ours.tokens_per_s >= chain.tokens_per_s else f"{text} attach(…, siblings=False) drafts without."


def _outputs(result: Result, place: Place, ours: Row) -> str:
    """How many outputs are those of plain decoding, where not all are."""
    if ours.identical >= ours.runs:
        return ""
    return f"Outputs: {ours.identical} of {ours.runs} are the same as plain decoding's; what that means is said below."


def _differences(result: Result) -> str:
    """What it means that outputs are not those of plain decoding, once per compression."""
    rows = [here[OURS] for place in result.places if OURS in (here := result.at(place))]
    regimes = dict.fromkeys(row.regime for row in rows if row.identical < row.runs)
    return "\n".join(dict.fromkeys(_difference(result, regime) for regime in regimes))


def _difference(result: Result, regime: str) -> str:
    text = f"Outputs in {regime}:"
    if not result.greedy:
        return (
            "Outputs: they differ as expected when sampling. Speculation keeps the distribution, not the single draw."
        )
    if regime == "int8":
        return (
            f"{text} LLM.int8() chooses its outlier columns over all rows of a forward, so its result depends on how "
            "many tokens are verified together; that is so with any speculation."
        )
    if regime == "fp32":
        return f"{text} in float32 they should all be plain decoding's; please report this with the result file."
    return (
        f"{text} a forward over several tokens rounds differently from one over a single token, so a "
        "near-tie may fall the other way, and what follows differs; that is so with any speculation."
    )


def _predictions(result: Result, place: Place, ours: Row) -> str:
    found = calibration(result.entries_at(place, OURS))
    if found is None or found.count < LEAST_PREDICTIONS or found.error <= BAD_CALIBRATION:
        return ""
    pair = _pair(result, place).replace("--compression", "--compressions", 1)
    return (
        f"The predicted probabilities are off by {percent(found.error)} in the mean ({found.count} predictions): train "
        f"a controller on this pair.\n    speckv profile records.parquet {pair}\n"
        "    speckv train records.parquet --out mine.onnx"
    )


def _costs(result: Result, place: Place, ours: Row) -> str:
    fit = cost_fit(result, place.regime) if place.framework == "transformers" else None
    if fit is None or fit.rounds < LEAST_STEPS or fit.error <= BAD_COSTS:
        return ""
    return (
        f"Rounds take {percent(fit.error)} more or less than calibrated, in the median over {fit.rounds}: the machine "
        f"was busy then or now. Calibrate again.\n    speckv calibrate {_pair(result, place)}"
    )


def _pair(result: Result, place: Place) -> str:
    pair = f"--pair {shlex.quote(result.pair)}" if result.pair else "--pair TARGET,DRAFT"
    target, draft = REGIMES.get(place.regime, ("bf16", "bf16"))
    return f"{pair} --compression {target} --draft-compression {draft}"


def _loads(result: Result) -> str:
    """At which concurrencies of a server it pays and at which it does not, where that differs."""
    made = []
    servers = [place for place in result.places if OURS in result.at(place) and place.framework != "transformers"]
    for framework, regime in dict.fromkeys((place.framework, place.regime) for place in servers):
        of: dict[Finding, list[int]] = {}
        for place in servers:
            if (place.framework, place.regime) == (framework, regime):
                of.setdefault(finding(result.at(place)[OURS], "vs_plain"), []).append(place.concurrency)
        if Finding.BELOW in of and len(of) > 1:
            lost = listed([at_once(one) for one in of[Finding.BELOW]])
            won = listed([str(one) for one in of.get(Finding.ABOVE, [])])
            text = f"{framework}, {regime}: {OURS} loses with {lost}" + (f" and pays at {won}" if won else "")
            made.append(f"{text}. A server has one setting for all loads: choose by the load it mostly has.")
    return "\n".join(made)

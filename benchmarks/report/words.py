"""How numbers, places and policies are said, in the page and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from speckv.benchmarks.report.reading import Place, Row

LONGEST = 24
WHAT = {
    "plain": "no speculation: the target model writes one token per forward",
    "hf-default": "transformers' own assisted generation as it comes, which raises and lowers γ by a rule of thumb",
    "paper": "the published SpecKV policy, which aims at tokens per step",
    "speckv": "this project: γ is chosen while drafting, for tokens per second",
    "speckv-chain": "this project, without tokens beside those drafted",
    "speckv-step": "this project, deciding once before drafting instead of after every token",
}


def explain(policy: str) -> str:
    """A policy in a few words."""
    if gamma := fixed_gamma(policy):
        return f"always {gamma} draft tokens"
    return WHAT.get(policy, "another policy")


def fixed_gamma(policy: str) -> int | None:
    """The γ of a fixed policy with γ ≥ 1, else None."""
    number = policy.removeprefix("fixed-")
    return int(number) or None if number != policy and re.fullmatch(r"[0-9]{1,3}", number) else None


def at_once(concurrency: int) -> str:
    return "one request at a time" if concurrency == 1 else f"{concurrency} requests at a time"


def named(framework: str) -> str:
    """A framework as it writes itself."""
    return {"sglang": "SGLang"}.get(framework, framework)


def where(place: Place) -> str:
    """A place as a heading."""
    batch = place.framework == "transformers" and place.concurrency > 1
    load = f"a batch of {place.concurrency}" if batch else at_once(place.concurrency)
    return f"{named(place.framework)}, {place.regime}, {load}"


def number(value: float) -> str:
    """Three digits that matter, at most four decimals: 0.0571, 0.57, 5.71, 57.1, 571."""
    if value < 0.1:
        return f"{value:.4f}" if value else "0"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ratio(row: Row, key: str) -> str:
    """A ratio with its interval: 1.51 (1.32–1.70); – where there is none, and no interval of a single prompt."""
    value = getattr(row, key)
    if value is not None and row.single(key):
        return f"{value:.2f} (1 prompt)"
    return "–" if value is None else f"{value:.2f} ({span(row.interval(key))})"


def span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2f}–{interval[1]:.2f}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def waits(row: Row) -> str:
    """Medians and 95th percentiles of the waits between tokens, in ms."""
    if row.itl_p50_ms is None or row.itl_p95_ms is None:
        return "–"
    return f"{row.itl_p50_ms:.0f} / {row.itl_p95_ms:.0f}"


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def slug(text: str) -> str:
    """``text``, a stranger's perhaps, as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "x"


def place_slug(place: Place) -> str:
    """A place as a part of a file's name."""
    return f"{slug(place.framework)}-{slug(place.regime)}-{place.concurrency}"


def shortened(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"

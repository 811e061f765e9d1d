"""The demo: one pair, a few held-out prompts, every mode side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from speckv.benchmarks.bench.plan import OURS
from speckv.benchmarks.collect.generation import PLAIN, Generation, Modes
from speckv.benchmarks.collect.profile import chat_inputs
from speckv.benchmarks.common.progress import Report
from speckv.benchmarks.common.tables import Table
from speckv.benchmarks.prompts import Prompt
from speckv.controller.stats import Stats

DEMO_MODES = ("plain", "hf-default", "fixed-4", "paper", "speckv")
WARM_UP_TOKENS = 8


@dataclass
class Line:
    """Totals of one mode over all prompts."""

    mode: str
    tokens: int = 0
    seconds: float = 0.0
    identical: int = 0
    stats: Stats = field(default_factory=Stats)

    @property
    def rate(self) -> float:
        """Tokens per second, Σtokens / Σtime."""
        return self.tokens / self.seconds

    def add(self, generation: Generation, reference: Sequence[int]) -> None:
        self.tokens += len(generation.tokens)
        self.seconds += generation.seconds
        self.identical += generation.tokens == list(reference)
        self.stats.merge(generation.stats)


def compare(
    modes: Modes,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    names: Sequence[str] = DEMO_MODES,
    tokens: int = 48,
    report: Report = lambda *_: None,
) -> list[Line]:
    """Run every mode on every prompt, interleaved prompt by prompt, after one short warm-up each.

    ``plain`` always runs, since the other outputs are compared with its.
    """
    names = [PLAIN, *(name for name in names if name != PLAIN)]
    lines = {name: Line(name) for name in names}
    warm_up = chat_inputs(tokenizer, "Hello").to(modes.target.device)
    for name in names:
        modes.generate(name, warm_up, WARM_UP_TOKENS)
    steps = len(prompts) * len(names)
    report("generate", 0, steps)
    for number, prompt in enumerate(prompts):
        inputs = chat_inputs(tokenizer, prompt.text).to(modes.target.device)
        shift = number % len(names)  # another mode comes first each time: a drift in speed favours none
        generations: dict[str, Generation] = {}
        for name in (*names[shift:], *names[:shift]):
            generations[name] = modes.generate(name, inputs, tokens)
            report("generate", number * len(names) + len(generations), steps)
        for name, generation in generations.items():
            lines[name].add(generation, generations[PLAIN].tokens)
    return [lines[name] for name in names]


def as_json(lines: Sequence[Line], prompts: int, **facts: Any) -> dict[str, Any]:
    """The table's figures, with ``facts`` (models, versions, machine, command) beside them."""
    plain = next(line for line in lines if line.mode == PLAIN)
    rows = [
        {
            "mode": line.mode,
            "tokens_per_s": line.rate,
            "vs_plain": line.rate / plain.rate,
            "identical": line.identical,
            **line.stats.as_dict(),
        }
        for line in lines
    ]
    return {**facts, "prompts": prompts, "rows": rows}


def table(lines: Sequence[Line], prompts: int, title: str, exact: bool = True) -> Table:
    """The demo's closing table; in lower precision than float32 outputs are not ``exact``, and it says so."""
    header = ("mode", "tokens/s", "vs plain", "tokens/verify", "mean γ", "acceptance", "same output")
    note = "vs plain: times the speed of decoding without a draft. tokens/verify: tokens written per forward of the "
    note += "target. mean γ: tokens drafted for it. acceptance: the share of them that was kept. same output: prompts "
    note += "whose text is plain's, "
    note += "which must be all." if exact else "not always all below fp32, where a near-tie may fall the other way."
    made = Table(title, header, note=note, bold=OURS)
    plain = next(line for line in lines if line.mode == PLAIN)
    for line in lines:
        stats = line.stats
        cells = [line.mode, f"{line.rate:.2f}", f"{line.rate / plain.rate:.2f}×", f"{stats.tokens_per_verify:.2f}"]
        cells += [f"{stats.mean_gamma:.1f}", f"{stats.acceptance_rate:.0%}"] if stats.drafted else ["–", "–"]
        made.rows.append([*cells, f"{line.identical}/{prompts}"])
    return made

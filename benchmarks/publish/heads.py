"""The trained head as a section of a page: what is accepted of it, and what the shipped controller knows of that."""

from __future__ import annotations

from pathlib import Path

from speckv.benchmarks.common.tables import Table
from speckv.benchmarks.publish.parts import introduced, read

KNOWN = {
    "shipped": "the controller, as shipped",
    "corrected": "and the running correction",
    "relative": "entropies as parts of their maximum",
    "both": "and the running correction",
    "mean": "the mean in hindsight, whatever the signals",
}
"""What ``eagle3.judged`` compares, in its order."""


def head_section(results: Path) -> str:
    result = read(results / "eagle3-smollm2.json")
    judged, settings = result["controller"], result["settings"]
    depths = range(1, len(result["accepted"]) + 1)
    accepted = ", ".join(f"{share:.0%}" for share in result["accepted"])
    made = Table("Known of a head", ("P(depth j is reached)", "by", "log loss", *(f"j = {depth}" for depth in depths)))
    for when, losses in judged["log_loss"].items():
        for name, words in KNOWN.items():
            shares = [f"{share:.3f}" for share in judged["predicted"][when][name]]
            made.rows.append((f"{when} level j", words, f"{losses[name]:.3f}", *shares))
    return introduced(
        f"`{result['command']}`: an EAGLE-3 head of {settings['pair']}'s target, {settings['words']} tokens, "
        f"{result['trained_parameters'] / 1e6:.1f} M parameters, {settings['steps']} steps on what the target said "
        f"({result['said_tokens']:,} tokens), to a loss of {result['loss']:.2f} nats a token. After "
        f"{result['held_prompts']} prompts that it was not trained on, its first 1, 2 … tokens are right at {accepted} "
        f"of the positions. Below: what is known of {judged['rounds']:,} rounds there "
        "before each level is drafted, and after, by its own signals.",
        made,
    )

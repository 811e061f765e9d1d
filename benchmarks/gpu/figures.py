"""What a run on a GPU found, as tables for README."""

from __future__ import annotations

from typing import Any

from speckv.benchmarks.common.tables import Table

SHOWN = (1, 2, 8, 32, 64)
"""Tokens a sequence."""

LEAST_P = 1e-3
"""Of an exact way of sampling the p-value is so small once in a thousand runs."""


def is_exact(row: dict[str, Any]) -> bool:
    """Whether a row of the exactness that was checked says that output is the target's own."""
    return bool(row.get("identical", row.get("p_value", 0.0) > LEAST_P))


def section(result: dict[str, Any]) -> str:
    """Exactness and synchronisations in a sentence; tables of forwards, of the pair end to end, and of the replay."""
    exact = [is_exact(row) for row in result["exactness"]]
    waits = " and ".join(
        f"{row['per_level']:.2f} times with {'one prompt' if row['batch'] == 1 else str(row['batch']) + ' prompts'}"
        for row in result["synchronisations"]
        if "per_level" in row
    )
    context = result["plan"]["contexts"][len(result["plan"]["contexts"]) // 2]
    intro = (
        f"`{result['command']}` on one {result['device']}: output is the target's own in {sum(exact)} of {len(exact)} "
        f"ways of decoding (float32; chains, trees, batches, sampling); for a level that is asked about the host waits "
        f"{waits or 'an unknown number of times'}. "
        f"Below: milliseconds of a forward in transformers, bfloat16, models of {result['plan']['draft'].upper()} and "
        f"{result['plan']['target'].upper()} size with random weights, {context} tokens of context."
    )
    parts = [intro, _forwards(result, context).markdown().rstrip()]
    if result.get("end_to_end"):
        parts += [_pair(result), _end_to_end(result).markdown().rstrip()]
    if result.get("replay"):
        parts += ["Replay of recorded drafts under these times:", _replayed(result).markdown().rstrip()]
    return "\n\n".join(parts)


def _forwards(result: dict[str, Any], context: int) -> Table:
    made = Table("Forwards", ("model", "sequences", *(f"{count} tokens" for count in SHOWN)))
    for role in ("draft", "target"):
        rows = [row for row in result[role] if row["context"] == context]
        for batch in dict.fromkeys(row["batch"] for row in rows):
            ms = {row["tokens"]: row["ms"] for row in rows if row["batch"] == batch}
            made.rows.append([role, str(batch), *(f"{ms[count]:.1f}" if ms.get(count) else "–" for count in SHOWN)])
    return made


def _pair(result: dict[str, Any]) -> str:
    size, _, _, prompts, tokens = result["plan"]["pair"]
    return (
        f"End to end, a target of {size.upper()} size and its first eighth of the layers as the draft, {prompts} "
        f"random prompts (or batches) × {tokens} tokens, greedy, bfloat16. The weight of what the other layers say "
        "sets the acceptance. With 95 % intervals, which of so few prompts are themselves uncertain."
    )


def _end_to_end(result: dict[str, Any]) -> Table:
    made = Table("End to end", ("weight", "prompts", "policy", "accepted", "τ", "tokens/s", "vs plain", "95 %"))
    for row in result["end_to_end"]:
        stats, (low, high) = row["stats"], row["ci"]["vs_plain"]
        accepted = f"{stats['acceptance_rate']:.0%}" if stats["drafted"] else "–"
        cells = [str(row["further"]), str(row["batch"]), row["policy"], accepted, f"{stats['tokens_per_verify']:.2f}"]
        made.rows.append([*cells, f"{row['tokens_per_s']:.1f}", f"{row['vs_plain']:.2f}", f"{low:.2f}–{high:.2f}"])
    return made


def _replayed(result: dict[str, Any]) -> Table:
    made = Table("Replay", ("prompts", "policy", "vs best fixed", "vs best tree", "vs plain", "least of the orders"))
    for row in result["replay"]:
        ratios = [f"{row[key]:.2f}" for key in ("vs_best_fixed", "vs_best_tree", "vs_plain", "vs_plain_min")]
        made.rows.append([str(row["batch"]), row["policy"], *ratios])
    return made

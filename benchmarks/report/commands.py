"""What to paste for what is recommended."""

from __future__ import annotations

import shlex

from speckv.benchmarks.bench.plan import DENSE, DRAFT_KINDS, REGIMES, load_formats
from speckv.benchmarks.report.reading import Place, Result


def commands(result: Result, place: Place, gamma: int | None) -> str:
    """What to paste, for a ``gamma`` as ``choice`` gives it."""
    lines: list[str] = []
    if place.framework == "transformers":
        lines = _transformers(gamma)
    elif place.framework == "sglang":
        lines = _sglang(result, place, gamma)
    return "\n".join(f"    {line}".rstrip() for line in lines)


def _transformers(gamma: int | None) -> list[str]:
    if gamma == 0:
        return ["out = target.generate(**inputs)  # without assistant_model"]
    fixed = f", gamma={gamma}" if gamma else ""
    return [
        "from speckv.integrations.transformers import attach",
        "",
        f"attach(target, draft{fixed})",
        "out = target.generate(**inputs, assistant_model=draft)",
    ]


def _sglang(result: Result, place: Place, gamma: int | None) -> list[str]:
    # The names are a stranger's, and are to be pasted into a shell.
    ours, stock = DRAFT_KINDS.get(str(result.settings.get("draft_kind")), DRAFT_KINDS["model"])
    head = ours == stock
    names = ["TARGET", "HEAD" if head else "DRAFT"]
    if "," in result.pair:
        names = [shlex.quote(name) for name in result.pair.split(",", 1)]
    notes, formats = [], ["", ""]
    for at, compression in enumerate(REGIMES.get(place.regime, DENSE[:2])):
        if compression not in DENSE:
            names[at] = ("TARGET", "DRAFT")[at]
            of = "a folder of its weights as bitsandbytes quantises them"
            notes.append(f"# {names[at]}: {of} to {compression} and transformers saves them")
    if notes:
        target, draft = load_formats(place.regime)
        formats = [f" --load-format {target}", f" --speculative-draft-load-format {draft}"]
    lines = [f"python -m sglang.launch_server --model-path {names[0]}{formats[0]}"]
    if gamma is None:
        lines.append(f"  --speculative-algorithm {ours} --speculative-num-steps 8")
        if head:
            notes.append("""# speckv.json: {"speckv": {}}""")
            lines.append("  --speculative-adaptive --speculative-adaptive-config speckv.json")
    elif gamma:
        lines.append(f"  --speculative-algorithm {stock} --speculative-num-steps {gamma}")
        lines.append(f"  --speculative-eagle-topk 1 --speculative-num-draft-tokens {gamma + 1}")
    if gamma != 0:
        lines.append(f"  --speculative-draft-model-path {names[1]}{formats[1]}")
    return [*notes, *(f"{line} \\" for line in lines[:-1]), lines[-1]]

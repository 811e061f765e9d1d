"""Traces: what the target says greedily, and what the draft would propose from every position of it.

Greedy decoding being lossless, the target's sequence is fixed whatever is speculated. So the draft's run from every
position settles what any policy would have seen and had accepted; ``benchmarks/replay`` plays policies on that.

A run whose first token is the target's goes on as the next position's run does. Only runs that begin with another
token (and all first tokens) are stored, which makes a file and its making five times smaller.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speckv.controller.errors import SpecKVError
from speckv.controller.features import compression_level
from speckv.controller.files import write_whole
from speckv.controller.policy import BEST
from speckv.controller.walks import TracedSequence

FACTS_KEY = b"speckv.traces"
FORMAT = 2
"""1 had no ranks, and of each distribution only the best probability."""
LAST_RANK = 255
"""Stands for itself and everything after."""

Best = tuple[float, float, float, float]


@dataclass(frozen=True)
class Branch:
    """The draft's run from one position, and how far from its first choice the target's token is.

    ``rank`` counts the tokens that the draft puts before the target's, up to LAST_RANK; 0 is a match. ``entropies``
    (nats) and ``best`` (the BEST largest probabilities, descending) have an entry per drafted token. Where the first
    token is the target's, only that token's are here: the run goes on as the next position's. Else it is the whole
    run, up to ``depth``, a drafted EOS or the most tokens a sequence may have.
    """

    rank: int
    entropies: tuple[float, ...]
    best: tuple[Best, ...]

    @property
    def matched(self) -> bool:
        return self.rank == 0


@dataclass(frozen=True)
class Trace:
    """One prompt: the draft's runs from all N positions of the target's sequence.

    ``matches`` (N,) counts the first tokens of each run that the target would accept; ``lengths`` (N,) how long the
    run is: ``depth``, or less where the sequence or a drafted EOS ends it. ``ranks`` (N,) is as in Branch; where a run
    leaves the sequence, at ``matches`` tokens, the rank at that position says which of its choices were right.
    ``entropies`` (N, depth; nats) and ``best`` (N, depth, BEST; descending probabilities) are NaN beyond the length.
    """

    prompt_id: str
    task: str
    prompt_tokens: int
    matches: NDArray[np.int64]
    lengths: NDArray[np.int64]
    ranks: NDArray[np.int64]
    entropies: NDArray[np.float32]
    best: NDArray[np.float32]

    @property
    def confidences(self) -> NDArray[np.float32]:
        """The largest probabilities, (N, depth)."""
        return self.best[..., 0]

    @property
    def tokens(self) -> int:
        return len(self.matches)


def unfold(prompt_id: str, task: str, prompt_tokens: int, branches: Sequence[Branch], depth: int) -> Trace:
    """The runs from every position, from the branches that are stored; position N − 1 comes last."""
    count = len(branches)
    matches, lengths = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    signals = np.full((count, depth, 1 + BEST), np.nan, dtype=np.float32)
    for place in reversed(range(count)):
        branch = branches[place]
        own = min(len(branch.best), depth)
        signals[place, :own] = np.column_stack((branch.entropies, branch.best))[:own]
        lengths[place] = own
        if branch.matched:
            matches[place] = 1
            if place + 1 < count:
                matches[place] = min(depth, 1 + matches[place + 1])
                lengths[place] = min(depth, 1 + lengths[place + 1])
                signals[place, 1:] = signals[place + 1, :-1]
    ranks = np.array([branch.rank for branch in branches], dtype=np.int64)
    return Trace(prompt_id, task, prompt_tokens, matches, lengths, ranks, signals[..., 0], signals[..., 1:])


def write_traces(path: Path, entries: Sequence[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Write the prompts' branches (``entries``, as the journal has them) as Parquet with float16 signals."""
    import pyarrow
    import pyarrow.parquet

    rows = [
        {
            "prompt_id": entry["prompt_id"],
            "task": entry["task"],
            "prompt_tokens": entry["prompt_tokens"],
            "position": position,
            "rank": branch["rank"],
            "entropies": np.asarray(branch["entropies"], dtype=np.float16),
            "best": np.asarray(branch["best"], dtype=np.float16).ravel(),
        }
        for entry in entries
        for position, branch in enumerate(entry["branches"])
    ]
    metadata = {FACTS_KEY: json.dumps({"format": FORMAT} | facts).encode()}
    table = pyarrow.Table.from_pylist(rows, schema=_schema().with_metadata(metadata))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    write_whole(path, buffer.getvalue())


def _schema() -> Any:
    """A row per position; ``best`` has BEST values per drafted token, one token after the other."""
    import pyarrow

    half = pyarrow.list_(pyarrow.float16())
    types = [
        ("prompt_id", pyarrow.string()),
        ("task", pyarrow.string()),
        ("prompt_tokens", pyarrow.int32()),
        ("position", pyarrow.int32()),
        ("rank", pyarrow.uint8()),
        ("entropies", half),
        ("best", half),
    ]
    return pyarrow.schema(types)


def read_traces(path: Path) -> tuple[list[Trace], dict[str, Any]]:
    """The traces of a file and the facts about them; SpecKVError names the file and what is wrong with it."""
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise SpecKVError(f"{path}: no such trace file; make one with speckv trace")
    try:
        table = pyarrow.parquet.read_table(path)
        facts = json.loads((table.schema.metadata or {})[FACTS_KEY])
        depth, _ = int(facts["depth"]), int(facts["tokens"])
        if (written := facts.get("format", 1)) != FORMAT:
            raise ValueError(f"of format {written}, and this version reads {FORMAT}")
        if not table.schema.equals(_schema()):
            raise ValueError("other columns")
        found: dict[str, list[dict[str, Any]]] = {}
        for row in table.to_pylist():
            found.setdefault(row["prompt_id"], []).append(row)
        traces = [_trace(prompt_id, rows, depth) for prompt_id, rows in found.items()]
    except (pyarrow.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0][:80]
        raise SpecKVError(f"{path}: not a trace file ({reason}); make it again with speckv trace") from None
    return traces, facts


def _trace(prompt_id: str, rows: list[dict[str, Any]], depth: int) -> Trace:
    branches = []
    for number, row in enumerate(rows):
        own, where = len(row["entropies"]), f"prompt {prompt_id}, position {row['position']}"
        if row["position"] != number or not 1 <= own <= depth or len(row["best"]) != BEST * own:
            raise ValueError(f"{where}: out of order or of a wrong length")
        best = np.array(row["best"], dtype=np.float32).reshape(own, BEST)
        if (row["rank"] == 0 and own != 1) or not _possible(np.array(row["entropies"], dtype=np.float32), best):
            raise ValueError(f"{where}: signals that cannot be")
        branches.append(
            Branch(row["rank"], tuple(row["entropies"]), tuple((a, b, c, d) for a, b, c, d in best.tolist()))
        )
    return unfold(prompt_id, rows[0]["task"], rows[0]["prompt_tokens"], branches, depth)


def _possible(entropies: NDArray[np.float32], best: NDArray[np.float32]) -> bool:
    """Whether the signals (T,) and (T, BEST) can be those of distributions, rounded to float16."""
    finite = bool(np.isfinite(entropies).all() and np.isfinite(best).all())
    descending = bool((best >= 0).all() and (best[:, 1:] <= best[:, :-1]).all())  # rounding keeps the order
    return finite and descending and bool((entropies >= 0).all() and (best.sum(axis=1) <= 1 + BEST * 2**-12).all())


def read_sequences(paths: Iterable[Path]) -> list[TracedSequence]:
    """The sequences of trace files, each with the compression that its file says."""
    sequences = []
    for path in paths:
        traces, facts = read_traces(path)
        level = compression_level(facts["compression"])
        for trace in traces:
            signals = trace.entropies, trace.confidences
            sequences.append(TracedSequence(trace.prompt_id, level, trace.matches, trace.lengths, *signals))
    return sequences

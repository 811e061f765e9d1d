"""Traces: what the target says greedily, and what the draft would propose from every position of it.

Greedy decoding being lossless, the target's text is fixed whatever is speculated. So the draft's run from every
position settles what any policy would have seen and had accepted; ``benchmarks/replay`` plays policies on that.

A run whose first token is the target's goes on as the next position's run does. Only runs that begin with another
token (and all first tokens) are stored, which makes a file and its making five times smaller.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speckv.controller.errors import SpecKVError
from speckv.controller.files import write_whole

FACTS_KEY = b"speckv.traces"


@dataclass(frozen=True)
class Branch:
    """The signals (nats, probabilities) of the draft's run from one position.

    Where the first token is the target's (``matched``), only that token's are here: the run goes on as the next
    position's. Else it is the whole run, up to ``depth``, a drafted EOS or the most tokens a text may have.
    """

    matched: bool
    entropies: tuple[float, ...]
    confidences: tuple[float, ...]


@dataclass(frozen=True)
class Trace:
    """One prompt: the draft's runs from all N positions of the target's text.

    ``matches`` (N,) counts the first tokens of each run that the target would accept; ``lengths`` (N,) how long the
    run is: ``depth``, or less where the text or a drafted EOS ends it. ``entropies`` (nats) and ``confidences``
    are (N, depth), NaN beyond the length.
    """

    prompt_id: str
    task: str
    prompt_tokens: int
    matches: NDArray[np.int64]
    lengths: NDArray[np.int64]
    entropies: NDArray[np.float32]
    confidences: NDArray[np.float32]

    @property
    def tokens(self) -> int:
        return len(self.matches)


def unfold(prompt_id: str, task: str, prompt_tokens: int, branches: Sequence[Branch], depth: int) -> Trace:
    """The runs from every position, from the branches that are stored; position N − 1 comes last."""
    count = len(branches)
    matches, lengths = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    signals = np.full((2, count, depth), np.nan, dtype=np.float32)
    for place in reversed(range(count)):
        branch = branches[place]
        own = min(len(branch.confidences), depth)
        signals[:, place, :own] = (branch.entropies[:own], branch.confidences[:own])
        lengths[place] = own
        if branch.matched:
            matches[place] = 1
            if place + 1 < count:
                matches[place] = min(depth, 1 + matches[place + 1])
                lengths[place] = min(depth, 1 + lengths[place + 1])
                signals[:, place, 1:] = signals[:, place + 1, :-1]
    return Trace(prompt_id, task, prompt_tokens, matches, lengths, signals[0], signals[1])


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
            "matched": branch["matched"],
            "entropies": np.asarray(branch["entropies"], dtype=np.float16),
            "confidences": np.asarray(branch["confidences"], dtype=np.float16),
        }
        for entry in entries
        for position, branch in enumerate(entry["branches"])
    ]
    half = pyarrow.list_(pyarrow.float16())
    types = [
        ("prompt_id", pyarrow.string()),
        ("task", pyarrow.string()),
        ("prompt_tokens", pyarrow.int32()),
        ("position", pyarrow.int32()),
        ("matched", pyarrow.bool_()),
        ("entropies", half),
        ("confidences", half),
    ]
    schema = pyarrow.schema(types, metadata={FACTS_KEY: json.dumps(facts).encode()})
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    write_whole(path, buffer.getvalue())


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
        rows = table.to_pylist()
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            found.setdefault(row["prompt_id"], []).append(row)
        traces = [_trace(prompt_id, rows, depth) for prompt_id, rows in found.items()]
    except (pyarrow.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise SpecKVError(f"{path}: not a trace file ({str(error).splitlines()[0][:80]}); make it again") from None
    return traces, facts


def _trace(prompt_id: str, rows: list[dict[str, Any]], depth: int) -> Trace:
    branches = []
    for number, row in enumerate(rows):
        signals = (*row["entropies"], *row["confidences"])
        own = len(row["confidences"])
        if row["position"] != number or not 1 <= own <= depth or len(signals) != 2 * own:
            raise ValueError(f"prompt {prompt_id}, position {row['position']}: out of order or of a wrong length")
        if (row["matched"] and own != 1) or not np.isfinite(np.asarray(signals, dtype=np.float32)).all():
            raise ValueError(f"prompt {prompt_id}, position {number}: signals that cannot be")
        branches.append(Branch(row["matched"], tuple(row["entropies"]), tuple(row["confidences"])))
    return unfold(prompt_id, rows[0]["task"], rows[0]["prompt_tokens"], branches, depth)

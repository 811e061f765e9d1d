"""The built-in prompts: ``train`` for profiling and training, ``heldout`` for judging, and nothing in both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speckv.controller.errors import SpecKVError

TASKS = ("code", "math", "chat", "summarization")
SETS = ("train", "heldout")


@dataclass(frozen=True)
class Prompt:
    id: str
    task: str
    text: str


def load_prompts(name: str = "heldout") -> list[Prompt]:
    """A built-in set (``train`` or ``heldout``) or a JSONL file.

    A line of it has ``id``, ``task`` and ``prompt``, or as in Spec-Bench's question files ``question_id``, ``category``
    and ``turns``, of which the first is asked.
    """
    path = Path(__file__).parent / f"{name}.jsonl" if name in SETS else Path(name)
    if not path.is_file():
        raise SpecKVError(f"{name}: no such prompt file; give {' or '.join(SETS)}, or a JSONL file")
    prompts = []
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise SpecKVError(f"{path}: not a readable prompt file ({error}); give JSONL in UTF-8") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            prompts.append(_prompt(entry))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            reason = f"no key {error}" if isinstance(error, KeyError) else "not a JSON object"
            raise SpecKVError(f"{path}: line {number}: {reason}; each line needs id, task and prompt") from None
    if not prompts:
        raise SpecKVError(f"{path}: no prompts in it")
    return prompts


def _prompt(entry: dict[str, Any]) -> Prompt:
    if "question_id" in entry:
        return Prompt(str(entry["question_id"]), str(entry["category"]), str(entry["turns"][0]))
    return Prompt(str(entry["id"]), str(entry["task"]), str(entry["prompt"]))

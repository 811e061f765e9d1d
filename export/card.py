"""The model card of a controller: what it was trained on, how good it is, what it reads, where it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from speckv.export.artefact import Artefact

FRONT_MATTER = """---
library_name: speckv
tags:
- speculative-decoding
- speckv
- onnx
---
"""

USE = """## Use

```python
from speckv.integrations.runtime import Controller
from speckv.integrations.transformers import attach

attach(target, draft, controller=Controller.from_pretrained("<this repository or its folder>"))
target.generate(**inputs, assistant_model=draft)
```

`controller.onnx` is plain data, and it is checked before it is run. There is no pickle here, and none is needed.
"""

LIMITS = """## Limits

- It predicts acceptance for draft and target pairs like those of its training data. On another pair, profile and train
  again, or let the throughput objective correct it while it runs.
- Signals come from the draft's own distribution before any temperature; `compression` is the target's.
- Outside of the trained range of γ it extrapolates.
- Which γ is fastest also depends on what a draft token and a verification cost, which is measured where it runs and is
  not in this file.
"""


def model_card(artefact: Artefact) -> str:
    """The card as Markdown with YAML front matter, as a hub shows it."""
    metadata = artefact.metadata
    features = [f"| {number} | `{name}` | {metadata.units[name]} |" for number, name in enumerate(metadata.features)]
    levels = ", ".join(f"{level} {name}" for name, level in metadata.compression_levels.items())
    training = {key: value for key, value in metadata.training.items() if key != "metrics"}
    parts = [
        FRONT_MATTER,
        "# SpecKV controller\n",
        "Chooses how many tokens to draft in each step of speculative decoding.",
        f"Heads: {', '.join(metadata.heads)}. Candidate γ: {', '.join(map(str, metadata.gammas))}.",
        f"sha256 of `controller.onnx`: `{artefact.sha256}`.\n",
        USE,
        "## Features\n",
        "| position | name | unit |\n|---:|:---|:---|",
        *features,
        f"\nCompression levels: {levels}.",
        "Weights in the paper's form (`.npz`), where there are any, take both entropies in bits.\n",
        "## Metrics\n",
        *(_metrics(metadata.training.get("metrics")) or ["None are recorded in this file."]),
        "\n## Training data\n",
        *_indented(training),
        "\nMade with:\n",
        *_indented(metadata.versions),
        "",
        LIMITS,
    ]
    return "\n".join(parts)


def _metrics(metrics: Any) -> list[str]:
    lines = [f"| {name} | {value:.4f} |" for name, value in _numbers(metrics, "")]
    return ["| metric | value |\n|:---|---:|", *lines] if lines else []


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """The numbers in nested metrics; what is called by more than letters is left out, since it could be Markdown."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if str(key).isidentifier():
                yield from _numbers(inner, f"{name} {key}".strip())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _indented(value: Any) -> list[str]:
    """``value`` as a block of code by indentation, which no text in it can end."""
    return [f"    {line}" for line in json.dumps(value, indent=2, sort_keys=True).splitlines()]

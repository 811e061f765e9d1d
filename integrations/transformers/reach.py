"""How many tokens a round may draft at a place in the sequence, for models whose positions are not all alike.

A rotary embedding that switches by length (longrope, dynamic) turns *all* tokens of a forward by the last one's
position. Plain decoding has one token a forward, so a round may not reach over a switch that plain decoding takes
token by token. A table of learnt positions simply ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel

UNLIMITED = 1 << 30


class Reach:
    """Where a target's rotary embedding switches; ``room`` is asked in every round."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config.get_text_config(decoder=True)
        self.longrope = min((restart(model), *_switches(config, "longrope")))
        self.dynamic = min(_switches(config, "dynamic"), default=UNLIMITED)

    def room(self, length: int) -> int:
        """The most tokens to draft after a sequence of ``length``, whose last token the target has not been fed yet.

        Up to a switch: what is left of it. Beyond it a dynamic embedding changes with every token; longrope changes
        once, and where it does Phi-3 computes its cache anew, so that token is decoded alone.
        """
        if length > self.dynamic or length == self.longrope + 1:
            return 0
        left = min(limit - length for limit in (self.dynamic, self.longrope, UNLIMITED) if limit >= length)
        return max(0, left)

    def alike(self, length: int) -> bool:
        """Whether no rotary embedding switches up to ``length``: then forwards of several lengths may be one."""
        return length <= min(self.dynamic, self.longrope)


def restart(model: PreTrainedModel) -> int:
    """The length beyond which ``model`` begins a new cache in ``generate``, as Phi-3 does; UNLIMITED for all others."""
    config = model.config.get_text_config(decoder=True)
    return int(getattr(config, "original_max_position_embeddings", None) or UNLIMITED)


def positions(model: PreTrainedModel) -> int:
    """How many positions ``model`` has; UNLIMITED where its configuration names none."""
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else UNLIMITED


def _switches(config: Any, kind: str) -> Iterator[int]:
    """The lengths at which a rotary embedding of this ``kind`` switches; one per type of layer at most."""
    found = getattr(config, "rope_parameters", None) or {}
    for parameters in (found, *(value for value in found.values() if isinstance(value, dict))):
        if kind in str(parameters.get("rope_type", "")):
            length = parameters.get("original_max_position_embeddings") if kind == "longrope" else None
            yield int(length or config.max_position_embeddings)

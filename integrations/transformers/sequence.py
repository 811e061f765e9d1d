"""The sequence of one call of ``generate`` as it grows, token by token, and what of it the caller asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache, EosTokenCriteria, GenerationConfig, MaxLengthCriteria, StoppingCriteriaList
from transformers.generation import GenerateDecoderOnlyOutput

from speckv.integrations.device import sent


def padded(sequences: Sequence[TokenSequence], config: GenerationConfig) -> Tensor:
    """Several sequences as ``generate`` returns them, filled up with the padding token."""
    token = config.pad_token_id
    if token is None and config.eos_token_id is not None:
        token = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    longest = max(sequence.length for sequence in sequences)
    return torch.cat([pad(sequence.ids, (0, longest - sequence.length), value=token or 0) for sequence in sequences])


class TokenSequence:
    """Token ids, streamer, stopping criteria, scores: everything that plain decoding does with a new token.

    ``ids`` (1, n) is the prompt, on the caller's device. Length and EOS are looked at here; other criteria are asked
    once a token, in order, as plain decoding asks them. New tokens are kept on the host, and joined to ``ids`` where
    somebody asks for these.
    """

    def __init__(
        self, ids: Tensor, criteria: StoppingCriteriaList, config: GenerationConfig, streamer: Any = None
    ) -> None:
        self._ids, self._new, self._joined = ids, list[int](), 0
        self._given: list[int] | None = None
        self.length = ids.shape[1]
        self.streamer = streamer
        self._prompt: Tensor | None = ids  # for the streamer, once it is certain that this sequence is ours
        self.max_length = config.max_length
        self.eos = frozenset[int]()
        for criterion in criteria:
            if isinstance(criterion, EosTokenCriteria):
                self.eos |= frozenset(criterion.eos_token_id.reshape(-1).tolist())
        self._criteria = criteria
        self._simple = all(type(one) in (EosTokenCriteria, MaxLengthCriteria) for one in criteria)
        wanted = config.return_dict_in_generate
        self._as_dict = bool(wanted)
        self._scores: list[Tensor] | None = [] if wanted and config.output_scores else None
        self._logits: list[Tensor] | None = [] if wanted and config.output_logits else None
        self.ended = False

    @property
    def ids(self) -> Tensor:
        """(1, n): the prompt and all tokens so far."""
        if self._joined < len(self._new):
            new = sent([self._new[self._joined :]], self._ids.device, self._ids.dtype)
            self._ids = torch.cat((self._ids, new), dim=1)
            self._joined = len(self._new)
        return self._ids

    @property
    def device(self) -> torch.device:
        """The caller's."""
        return self._ids.device

    def last(self, count: int) -> list[int]:
        """The last ``count`` of ``ids``, or all of them; only where the prompt is among these does the host wait."""
        if count <= len(self._new):
            return self._new[-count:]
        if self._given is None:
            self._given = self._ids[0, : self.length - len(self._new)].tolist()
        return (self._given + self._new)[-count:]

    def add(self, token: int, scores: Tensor, logits: Tensor) -> bool:
        """Append ``token``, chosen by ``scores`` (1, V), made of ``logits`` (1, V); True when it is the last."""
        self._new.append(token)
        self.length += 1
        if self._scores is not None:
            self._scores.append(scores.float())
        if self._logits is not None:
            self._logits.append(logits.float())
        if self._simple:
            self.ended = token in self.eos or self.length >= self.max_length
        else:
            known = None if self._scores is None else tuple(self._scores)
            self.ended = bool(self._criteria(self.ids, known).all())
        if self.streamer is not None:
            if self._prompt is not None:
                self.streamer.put(self._prompt.cpu())
                self._prompt = None
            self.streamer.put(torch.tensor([token]))
        return self.ended

    def output(self, cache: Cache, cache_name: str) -> GenerateDecoderOnlyOutput | Tensor:
        """What ``generate`` returns."""
        if self.streamer is not None:
            self.streamer.end()
        if not self._as_dict:
            return self.ids
        scores, logits = (None if rows is None else tuple(rows) for rows in (self._scores, self._logits))
        told: dict[str, Any] = {"sequences": self.ids, "scores": scores, "logits": logits, cache_name: cache}
        return GenerateDecoderOnlyOutput(**told)

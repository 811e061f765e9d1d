"""The draft loop: proposes candidates for transformers' assisted generation, with the length a policy chooses."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.generation.candidate_generator import CandidateGenerator

from speckv.controller.policy import Policy, Round
from speckv.integrations.signals import pack, unpack
from speckv.integrations.transformers.draft import DraftModel, fit_vocabulary

RoundListener = Callable[[Round], None]


class AdaptiveCandidateGenerator(CandidateGenerator):
    """Drafts with ``policy``'s γ and reports every finished round to ``policy`` and ``listener``.

    Not an AssistedCandidateGenerator on purpose: transformers writes the "heuristic" schedule back into the draft's
    configuration for those. Every token drafted is returned for verification, whatever it is.
    """

    requires_model_outputs = False

    def __init__(
        self,
        draft: PreTrainedModel,
        policy: Policy,
        listener: RoundListener,
        *,
        direct: Callable[[], bool],
        generation_config: GenerationConfig,
        logits_processor: LogitsProcessorList | None,
        attention_mask: Tensor | None,
        vocabulary: int,
    ) -> None:
        self.policy = policy
        policy.start()
        self.listener = listener
        # Made when it is first needed: a text that is decoded plainly should cost the draft nothing.
        self.make_draft = lambda: DraftModel(draft, direct(), attention_mask, vocabulary)
        self.draft: DraftModel | None = None
        self.processors = logits_processor or LogitsProcessorList()
        self.sample = bool(generation_config.do_sample)
        self.max_length = generation_config.max_length
        self.vocabulary = vocabulary
        eos = getattr(generation_config, "_eos_token_tensor", None)
        self.eos = frozenset() if eos is None else frozenset(eos.reshape(-1).tolist())
        self.round: Round | None = None
        self.verify_started = 0.0
        self.first_round = True

    def get_candidates(self, input_ids: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """``input_ids`` (1, n) and the drafted tokens after it; for sampling, also the (1, γ, V) rows drawn from."""
        started = perf_counter()
        self.round = Round(position=input_ids.shape[1], verify_prefill=self.first_round)
        self.first_round = False
        gamma = self.policy.begin(self.max_length - input_ids.shape[1] - 1)
        self.round.decide_ms = (perf_counter() - started) * 1e3
        candidates, logits = input_ids, None
        if gamma > 0:
            tokens, rows = self._draft(input_ids, gamma, self.round)
            # Joined out here, where they become ordinary tensors again: what transformers does with them is its own.
            candidates = torch.cat((input_ids, tokens.to(input_ids.device)), dim=1)
            logits = torch.stack(rows, dim=1) if rows else None
        self.verify_started = perf_counter()
        return candidates, logits

    def update_candidate_strategy(self, input_ids: Tensor, scores: Tensor, num_matches: int) -> None:
        """Called by transformers after the verify: closes the round and reports it."""
        if self.round is None:
            return
        finished, self.round = self.round, None
        finished.accepted = int(num_matches)
        finished.emitted = input_ids.shape[1] - finished.position
        finished.verify_ms = (perf_counter() - self.verify_started) * 1e3
        self.policy.observe(finished)
        self.listener(finished)

    @torch.inference_mode()
    def _draft(self, input_ids: Tensor, gamma: int, this: Round) -> tuple[Tensor, list[Tensor]]:
        """The drafted ids (1, γ) and, for sampling, as many rows (1, V); fills in ``this``."""
        started = perf_counter()
        asked_ms = 0.0
        draft = self.draft = self.draft or self.make_draft()
        length = input_ids.shape[1]
        ids = torch.empty(1, length + gamma, dtype=input_ids.dtype, device=draft.device)
        ids[:, :length] = input_ids
        this.catch_up = draft.rewind(length)
        this.draft_prefill = this.catch_up == length
        unread: list[Tensor] = []
        rows: list[Tensor] = []
        for end in range(length, length + gamma):
            raw = draft.step(ids, end)
            token = self._choose(ids[:, :end], raw, rows)
            ids[:, end : end + 1] = token
            unread.append(pack(token, raw))
            if self.policy.per_token:
                if self._read(unread, this) or end + 1 == length + gamma:
                    break
                asked = perf_counter()
                more = self.policy.more(this.entropies, this.confidences)
                asked_ms += (perf_counter() - asked) * 1e3
                if not more:
                    break
        self._read(unread, this)
        this.decide_ms += asked_ms
        this.draft_ms = (perf_counter() - started) * 1e3 - asked_ms
        return ids[:, length : length + this.drafted], rows[: this.drafted]

    def _choose(self, prefix: Tensor, raw: Tensor, rows: list[Tensor]) -> Tensor:
        """The draft's next token (1, 1) after ``prefix`` (1, n); appends to ``rows`` what a sample was drawn from."""
        scores = fit_vocabulary(raw, self.vocabulary)
        if self.sample or self.processors:
            scores = self.processors(prefix, scores.to(torch.float32, copy=True))
        if not self.sample:
            return scores.argmax(-1, keepdim=True)
        rows.append(scores)
        return torch.multinomial(scores.softmax(-1), 1)

    def _read(self, unread: list[Tensor], this: Round) -> bool:
        """Fetch what the host has not seen yet, in one read; True once an EOS was drafted.

        What was drafted after an EOS (only when reads are deferred) is left out: no output can contain it.
        """
        if not unread:
            return False
        fetched = (unread[0] if len(unread) == 1 else torch.cat(unread)).tolist()
        unread.clear()
        for token, entropy, confidence in map(unpack, fetched):
            this.entropies.append(entropy)
            this.confidences.append(confidence)
            if token in self.eos:
                return True
        return False

"""The draft's side of a round: decides after every token whether to draft another, and branches off siblings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from sglang.srt.model_executor.forward_context import ForwardContext, forward_context
from sglang.srt.speculative.eagle_utils import per_step_draft_out_cache_loc
from sglang.srt.speculative.eagle_worker_v2 import EagleDraftWorker
from torch import Tensor

from speckv.integrations.device import sent
from speckv.integrations.sglang.config import MOST
from speckv.integrations.sglang.decisions import Decisions
from speckv.integrations.sglang.letter import Letter
from speckv.integrations.sglang.owner import Owner
from speckv.integrations.sglang.tree import bare, best_siblings, tree_input
from speckv.integrations.signals import CANDIDATES, WIDTH, pack


class Drafter(EagleDraftWorker):
    """SGLang's draft worker with decisions; ``join`` connects it once its worker exists.

    Slot j of the draft's KV cache belongs to token j + 1: SGLang feeds the draft one token ahead, so that the
    forward which closes a round (draft-extend) gives the first draft token of the next.
    """

    owner: Owner
    decisions: Decisions
    _deciding = False
    _read: list[Tensor]
    """(n, WIDTH) of every level after the first that was decided upon in this round."""

    def join(self, owner: Owner, decisions: Decisions) -> None:
        self.owner, self.decisions = owner, decisions

    def alloc_memory_pool(
        self, memory_pool_config: Any = None, req_to_token_pool: Any = None, token_to_kv_pool_allocator: Any = None
    ) -> None:
        super().alloc_memory_pool(memory_pool_config, req_to_token_pool, token_to_kv_pool_allocator)
        # The draft loop's signals: written inside a captured graph, so at an address that stays.
        self._recorded = torch.zeros((self._topk1_parents_prealloc.shape[0], MOST, WIDTH), device=self.device)

    def _rebuild_topk1_chain_buffers(self) -> None:
        """SGLang's draft loop needs them; nothing is drafted while a tree is verified or a state for that is built."""
        if self.speculative_num_draft_tokens == self.speculative_num_steps + 1:
            super()._rebuild_topk1_chain_buffers()

    @property
    def captured(self) -> bool:
        """Whether the draft loop is a CUDA graph, in which nothing can be decided."""
        return self.cuda_graph_runner is not None

    def draft(self, batch: Any, **options: Any) -> Any:
        """The verify input: a chain of as many draft tokens as are worth it, which may be none."""
        self._catch_up(batch)
        self.decisions.mark("caught_up")
        steps = self.decisions.first(batch.reqs)
        self.owner.adaptive_controller.activate(steps)
        if not steps:
            self.decisions.mark("drafted")
            # The first draft token is the argmax of what went before, not a draw: to leave it unused is to have
            # proposed nothing, and biases no distribution.
            return self.owner._build_trivial_verify_input(batch)
        self._deciding, self._read = self.decisions.policy.per_level, []
        try:
            chain = super().draft(batch, **options)
        finally:
            self._deciding = False
        gamma = self.owner.speculative_num_steps
        if gamma > 1 and not self.decisions.policy.per_level:
            assert self.decisions.round is not None
            self.decisions.round.rest = Letter(self._recorded[: len(batch.reqs), : gamma - 1])
        self.decisions.mark("drafted")
        count = self.decisions.siblings(gamma, self.owner.adaptive_controller.counts(gamma))
        self.decisions.mark("chosen")  # so that what it takes to build a tree is the verify's, which it is paid for
        if gamma != steps:
            # Off a CPU the whole ceiling's window was planned; verify has to plan its narrower one.
            chain.kv_loc_plan = chain.prepared_out_cache_loc = None
        tree = self._with_siblings(batch, chain, gamma, count) if count else chain
        assert self.decisions.round is not None
        plain = self.decisions.round.this.plain
        return bare(tree, sorted(plain)) if plain else tree

    def _with_siblings(self, batch: Any, chain: Any, gamma: int, count: int) -> Any:
        """The verify input of a tree: ``chain`` with ``count`` siblings of every request beside it."""
        assert self.decisions.round is not None
        size = len(batch.reqs)
        first = sent(self.decisions.round.first_level(), torch.device(self.device))[:, None]
        rest = torch.stack(self._read, 1) if self._read else self._recorded[:size]
        levels = self.decisions.ranks.same(torch.cat((first, rest[:, : gamma - 1]), dim=1))
        places = best_siblings(levels, count)
        self.decisions.round.places = Letter(places)
        self.owner.adaptive_controller.activate(gamma, gamma + 1 + count)
        backend = self.target_worker.model_runner.attn_backend
        known = batch.seq_lens_cpu
        longest = backend.max_context_len if known is None else int(known.max())
        return tree_input(chain, levels, places, batch.seq_lens, longest, backend)

    def draft_forward(self, forward_batch: Any) -> Any:
        """The draft loop: SGLang's own, also while it is captured; ours when each token is decided upon."""
        if not self._deciding:
            with self._last_logits() as seen:
                drafted = super().draft_forward(forward_batch)
            for step, output in enumerate(seen):
                logits = output.next_token_logits
                self._recorded[: logits.shape[0], step] = self._pack(drafted[2][:, step + 1 : step + 2], logits)
            return drafted
        info, size = forward_batch.spec_info, forward_batch.batch_size
        ceiling = self.speculative_num_steps
        slots = per_step_draft_out_cache_loc(forward_batch.out_cache_loc, size, 1, ceiling)
        tokens, wanted = [self._ids(info.topk_index)], ceiling
        while len(tokens) < wanted:
            step = len(tokens) - 1
            forward_batch.input_ids, forward_batch.out_cache_loc = tokens[-1].flatten(), slots[step]
            backend = self.draft_attn_backend.attn_backends[step]
            with forward_context(ForwardContext(attn_backend=backend), forward_batch=forward_batch):
                output = self.draft_runner.forward(forward_batch).logits_output
            if output.hidden_states is not None:  # a head goes on from its own
                info.hidden_states = output.hidden_states
            self._read.append(self._pack(None, output.next_token_logits))
            tokens.append(self._read[-1][:, :1].long())
            wanted = min(ceiling, self.decisions.deepen(Letter(self._read[-1]).read()))
            forward_batch.positions.add_(1)
            if self.draft_runner.model_config.model_is_mrope:
                forward_batch.mrope_positions.add_(1)
        # At least the one that was there: SGLang builds a chain of none in another way.
        del tokens[max(1, wanted) :]
        self.owner.adaptive_controller.activate(len(tokens))
        return (
            self._topk1_parents_prealloc[:size],
            self._topk1_score_indices_prealloc[:size],
            torch.cat(tokens, dim=1),
            None,
        )

    def _draft_extend_for_decode(self, batch: Any, batch_result: Any, **options: Any) -> None:
        """The draft processes what was accepted, which gives the next round's first token."""
        with self._last_logits() as seen:
            super()._draft_extend_for_decode(batch, self._front(batch, batch_result), **options)
        self._wrote(batch, batch_result.next_draft_input, seen)

    def _draft_extend_for_prefill(self, batch: Any, *args: Any, **options: Any) -> Any:
        """The draft reads the prompts."""
        with self._last_logits() as seen, self.decisions.reading(sum(batch.extend_lens)):
            draft_input = super()._draft_extend_for_prefill(batch, *args, **options)
        self._wrote(batch, draft_input, seen)
        return draft_input

    def _front(self, batch: Any, batch_result: Any) -> Any:
        """``batch_result`` as of a chain: what was accepted of a tree is at the front, and no deeper than its spine."""
        if self.owner.speculative_num_draft_tokens == self.owner.speculative_num_steps + 1:
            return batch_result
        self.owner.adaptive_controller.activate(self.owner.speculative_num_steps)
        size, count = len(batch.reqs), self.owner.speculative_num_draft_tokens

        def front(of_all: Tensor) -> Tensor:
            return of_all.view(size, -1, *of_all.shape[1:])[:, :count].flatten(0, 1)

        batch.out_cache_loc, output = front(batch.out_cache_loc), batch_result.logits_output
        if output.hidden_states is not None:
            output = replace(output, hidden_states=front(output.hidden_states))
        return replace(batch_result, next_token_ids=front(batch_result.next_token_ids), logits_output=output)

    def _catch_up(self, batch: Any) -> None:
        """Have the draft process what it has missed of the batch."""
        raise NotImplementedError

    def _wrote(self, batch: Any, draft_input: Any, seen: list[Any]) -> None:
        """The draft has processed all of the batch, and so knows each request's next token, the first of a round.

        Its signals go along: SGLang itself keeps 1.0 for a chain's probability.
        """
        letter = Letter(self._pack(self._ids(draft_input.topk_index), seen[-1].next_token_logits))
        for row, request in enumerate(self.decisions.served(batch.reqs)):
            request.first = letter, row

    def _ids(self, tokens: Tensor) -> Tensor:
        """The target's ids of the draft's ``tokens``: a head may know a part of the vocabulary."""
        return tokens if self.hot_token_id is None else self.hot_token_id[tokens]

    def _pack(self, tokens: Tensor | None, logits: Tensor) -> Tensor:
        """``signals.pack`` of the draft's ``logits``, with the target's ids."""
        packed = pack(tokens, logits)
        if self.hot_token_id is not None:
            known = packed[:, CANDIDATES]
            packed[:, CANDIDATES] = torch.where(known < 0, known, self._ids(known.long().clamp(min=0)).float())
            if tokens is None:
                packed[:, :1] = packed[:, CANDIDATES][:, :1]
        return packed

    @contextmanager
    def _last_logits(self) -> Iterator[list[Any]]:
        """Collects the logits outputs of the draft forwards inside, which SGLang does not hand out."""
        seen: list[Any] = []
        runner, graph = self.draft_runner, self.cuda_graph_runner_for_draft_extend
        forward = runner.forward

        def tapped(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            seen.append(out.logits_output)
            return out

        runner.forward = tapped
        if graph is not None:
            execute = graph.execute

            def tapped_graph(*args: Any, **kwargs: Any) -> Any:
                out = execute(*args, **kwargs)
                seen.append(out)
                return out

            graph.execute = tapped_graph
        try:
            yield seen
        finally:
            del runner.forward
            if graph is not None:
                del graph.execute

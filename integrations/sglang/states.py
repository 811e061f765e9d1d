"""SGLang's runtime states: what drafts γ tokens and what verifies N a request, built at start-up, joined by the round.

SGLang keeps a state for each γ, whose verify has γ + 1 tokens. A tree has more, so states that only verify are built
beside those, and a round's state takes its draft's side from one and its target's side from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

from sglang.srt.environ import envs
from sglang.srt.speculative.adaptive_runtime_state import AdaptiveController, SpecRuntimeState

from speckv.controller.policy import SIBLINGS
from speckv.integrations.sglang.backend import obstacle
from speckv.integrations.sglang.config import Config, tree_sizes

GRAPH_WIDTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 20)
"""γ for which CUDA graphs are captured by default: each costs memory and start-up time."""


class Drafting(Protocol):
    """A draft worker: how far it drafts, and whether in one captured loop."""

    speculative_num_steps: int

    @property
    def captured(self) -> bool: ...


class Widths:
    """SGLang's adaptive-policy protocol: for which γ it has to build a state, and which one it is to use next."""

    def __init__(self, draft: Drafting, config: Config) -> None:
        self._draft = draft
        self._config = config
        self._ceiling: int = draft.speculative_num_steps
        self.next: int = self._ceiling
        self._batch_sizes: list[int] | None = None

    @cached_property
    def candidate_steps(self) -> list[int]:
        """In ascending order. Every γ where a state is no more than attention backends, few where it is graphs.

        Settled when the states are built, at the ceiling: later the narrowest ones have no draft loop to be captured.
        """
        every = range(self._ceiling + 1)
        if not self._draft.captured:
            return list(every)
        chosen = self._config.widths or GRAPH_WIDTHS
        return sorted({0, self._ceiling, *(width for width in chosen if width in every)})

    @property
    def tree_sizes(self) -> tuple[int, ...]:
        """Tokens of a request that a tree's verify may have."""
        return tree_sizes(self._config, self._ceiling)

    def set_cuda_graph_bs(self, cuda_graph_bs: list[int] | None) -> None:
        self._batch_sizes = cuda_graph_bs

    def cuda_graph_bs_for_step(self, step: int) -> list[int] | None:
        return self._batch_sizes

    def get_steps_for_batch(self, batch_size: int) -> int:
        return self.next

    def on_verify_complete(self, num_correct_drafts_per_req: list[int], batch_size: int) -> int | None:
        return None


class States(AdaptiveController):
    """Whatever can be activated; ``obstacle`` says why a verify may not have more tokens of a request than γ + 1."""

    params: Widths
    obstacle: str | None = None

    def __init__(self, worker: Any, widths: Widths) -> None:
        super().__init__(worker, widths)
        self._trees: dict[int, SpecRuntimeState] = {}
        self._counts: dict[int, tuple[int, ...]] = {}

    def init_states(self, cuda_graph_bs: list[int] | None = None) -> None:
        super().init_states(cuda_graph_bs)
        wanted = self.params.tree_sizes
        self.obstacle = obstacle(self.worker.target_worker.model_runner) if wanted else "as configured"
        if self.obstacle is not None:
            return
        with envs.SGLANG_DISABLE_DRAFT_EXTEND_CUDA_GRAPH.override(True):
            for size in sorted(set(wanted) - {steps + 1 for steps in self._states}):
                self._trees[size] = self.worker.build_adaptive_runtime_state(0, size, cuda_graph_bs)

    def activate_step_by_batch(self, batch_size: int) -> None:
        self.activate(self.params.next)

    def counts(self, gamma: int) -> Sequence[int]:
        """How many siblings can be verified beside a spine of ``gamma`` tokens, in ascending order from 0."""
        if self.obstacle is not None:
            return (0,)
        if gamma not in self._counts:
            sizes = {*self._trees, *(steps + 1 for steps in self.candidate_steps)}
            beside = (size - 1 - gamma for size in sizes)
            self._counts[gamma] = tuple(sorted(count for count in beside if 0 <= count <= gamma * SIBLINGS))
        return self._counts[gamma]

    def activate(self, gamma: int, size: int | None = None) -> None:
        """Go on with ``gamma`` levels and a verify of ``size`` tokens a request, which of a chain are γ + 1."""
        worker, size = self.worker, gamma + 1 if size is None else size
        if (gamma, size) == (worker.speculative_num_steps, worker.speculative_num_draft_tokens):
            return
        state = self._states[gamma]
        if size != gamma + 1:
            verify = self._trees[size] if size in self._trees else self._states[size - 1]
            state = replace(
                state,
                speculative_num_draft_tokens=size,
                target_attn_backend=verify.target_attn_backend,
                target_graph_runner=verify.target_graph_runner,
            )
        worker.apply_runtime_state(state)

"""What the parts of SPECKV's worker ask of it: they know this much of it, and it knows them."""

from __future__ import annotations

from typing import Any, Protocol

from speckv.integrations.sglang.decisions import Decisions
from speckv.integrations.sglang.states import Drafting, States


class DraftSide(Drafting, Protocol):
    """Its draft worker."""

    draft_runner: Any


class Owner(Protocol):
    """The worker itself, most of which is SGLang's ``EAGLEWorkerV2``."""

    device: str
    page_size: int
    speculative_algorithm: Any
    speculative_num_steps: int
    speculative_num_draft_tokens: int
    adaptive_controller: States
    decisions: Decisions
    target_worker: Any
    req_to_token_pool: Any
    token_to_kv_pool_allocator: Any

    @property
    def draft_worker(self) -> DraftSide: ...

    def meet(self, decisions: Decisions) -> None:
        """Be decided for by ``decisions`` from now on."""

    def forward_batch_generation(self, batch: Any) -> Any: ...

    def _build_trivial_verify_input(self, batch: Any) -> Any: ...

    def _stub_skipped_draft_extend(self, batch: Any, result: Any) -> None: ...

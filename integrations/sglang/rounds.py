"""SGLang's EAGLE worker with rounds that are decided upon: what separate drafts and heads of the target share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from sglang.srt.runtime_context import get_observability, get_parallel, get_spec
from sglang.srt.speculative import eagle_worker_v2
from sglang.srt.speculative.eagle_info import EagleVerifyInput
from sglang.srt.speculative.eagle_worker_v2 import EAGLEWorkerV2

from speckv.controller.errors import SpecKVError
from speckv.controller.features import COMPRESSION_LEVELS, compression_level
from speckv.integrations.compression import detect_level
from speckv.integrations.sglang import decisions
from speckv.integrations.sglang.config import Config, LaunchError, load_controller
from speckv.integrations.sglang.costs import KeptCosts
from speckv.integrations.sglang.decisions import Decisions
from speckv.integrations.sglang.letter import Letter
from speckv.integrations.sglang.metrics import Metrics
from speckv.integrations.sglang.prebuilt import Prebuilt
from speckv.integrations.sglang.ranks import Ranks
from speckv.integrations.sglang.resting import RestingDrafter
from speckv.integrations.sglang.sampling import min_p_heeded
from speckv.integrations.sglang.states import States, Widths
from speckv.integrations.sglang.timing import Stopwatch

logger = logging.getLogger("speckv")

TOLD = ("speckv_gamma", "speckv_siblings", "speckv_sibling_hit")
"""In a response's meta_info: by output token, of the round that began with it the γ, the numbers of siblings that were
verified by depth, and at which depth one of these was right (0: none was); null where no round began."""


class Rounds(EAGLEWorkerV2):
    """``EAGLEWorkerV2`` whose rounds ask :class:`Decisions`.

    A round: decide whether to draft at all → let the draft catch up → decide by the signals of the first token, which
    that or the last draft-extend gave → draft, deciding after each further token where the loop is not captured →
    verify at that width → draft-extend, unless the draft rests.
    """

    drafts: ClassVar[tuple[Any, str, type[RestingDrafter]]]
    """The module and the name by which SGLang's ``__init__`` finds its draft worker's class, and ours in its place."""

    _draft_worker: RestingDrafter
    topk: int
    adaptive_controller: States
    decisions: Decisions

    def __init__(self, server_args: Any, gpu_id: int, nccl_port: int, target_worker: Any) -> None:
        with _replaced(*self.drafts):
            super().__init__(server_args, gpu_id, nccl_port, target_worker)
        self.enable_dp_spec_prefill_coordination = False  # EAGLEWorkerV2 sets it, StandaloneWorkerV2 does not
        self._config = self.read_config(get_spec().speculative_adaptive_config)
        self._widths = Widths(self._draft_worker, self._config)
        self.adaptive_controller = States(self, self._widths)
        self._prebuilt = Prebuilt(self.device)
        logger.setLevel(self._config.log_level.upper())
        logging.getLogger(eagle_worker_v2.__name__).addFilter(_no_switches)

    def read_config(self, path: str | None) -> Config:
        """What is configured, in the file ``path``."""
        raise NotImplementedError

    def init_cuda_graphs(self) -> None:
        """Build the runtime state of every width; then it is known whether a token's decision is possible."""
        super().init_cuda_graphs()
        logger.info("speckv: %s", self._prebuilt)
        draft, config = self._draft_worker, self._config
        if draft.captured and config.mode == "token":
            raise LaunchError(
                "speckv: mode token contradicts a draft loop captured in CUDA graphs; "
                "use mode step, or --disable-cuda-graph"
            )
        per_token = not draft.captured and config.mode != "step"
        target = self._target_worker.model_runner
        level = _level(config, target)
        decided = "after each draft token" if per_token else "before drafting"
        name = tuple(COMPRESSION_LEVELS)[level]
        obstacle = self.adaptive_controller.obstacle
        trees = obstacle is None
        shape = "trees" if trees else f"chains ({obstacle})"
        logger.info("speckv: compression level %s, γ 0 … %d, %s, decided %s", name, self._ceiling, shape, decided)
        ranks = Ranks(get_parallel().tp_group)
        self._costs = KeptCosts(self, ranks, config.gamma is None and config.objective == "throughput", config.warm_up)
        policy = decisions.build_policy(
            config,
            load_controller(config),
            level,
            self._costs.known,
            self._ceiling,
            per_token,
            trees,
        )
        labels = {"model_name": str(self.server_args.served_model_name or self.server_args.model_path)}
        if (replica := get_parallel().dp_rank) is not None:
            labels["dp_rank"] = str(replica)
        publish = ranks.decides and bool(get_observability().enable_metrics)
        metrics = Metrics(publish, labels, config.log_every)
        self.meet(Decisions(policy, ranks, Stopwatch(self.device), metrics, mixes=trees))

    def meet(self, decisions: Decisions) -> None:
        """Be decided for by ``decisions`` from now on."""
        self.decisions = decisions
        self._draft_worker.join(self, decisions)

    def build_adaptive_runtime_state(
        self, speculative_num_steps: int, speculative_num_draft_tokens: int, *args: Any, **kwargs: Any
    ) -> Any:
        label = f"γ {speculative_num_steps}" if speculative_num_steps else f"{speculative_num_draft_tokens} tokens"
        with self._prebuilt.state(label):
            return super().build_adaptive_runtime_state(
                speculative_num_steps, speculative_num_draft_tokens, *args, **kwargs
            )

    def _build_trivial_verify_input(self, batch: Any) -> Any:
        tree = super()._build_trivial_verify_input(batch)
        return replace(tree, draft_token=tree.draft_token.long())  # the GPU's kernels take nothing else

    def apply_runtime_state(self, state: Any) -> None:
        if state.speculative_num_draft_tokens != self.speculative_num_draft_tokens:
            self.speculative_num_steps = -1  # by which alone SGLang tells states apart
        super().apply_runtime_state(state)

    @property
    def _ceiling(self) -> int:
        return int(self.adaptive_controller.candidate_steps[-1])

    def forward_batch_generation(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if batch.forward_mode.is_extend() or batch.is_extend_in_batch:
            self.decisions.interrupt()
            return super().forward_batch_generation(batch, *args, **kwargs)
        draft, widths = self._draft_worker, self.adaptive_controller.candidate_steps
        self._widths.next = self.decisions.begin(batch.reqs, widths)
        draft.resting = self._widths.next == 0
        if draft.resting and draft.overdue(batch.reqs):
            self._widths.next = widths[1]  # SGLang then asks for a draft, which catches up and leaves it at that
        self.decisions.mark("begun")
        result = super().forward_batch_generation(batch, *args, **kwargs)
        self.decisions.mark("extended")
        return result

    def verify(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        self.decisions.mark("chosen")
        tree: EagleVerifyInput = batch.spec_info
        gamma, size, chain_topk = self.speculative_num_steps, len(batch.reqs), self.topk
        self.topk = tree.topk
        try:
            with min_p_heeded(batch.sampling_info):
                result = super().verify(batch, *args, **kwargs)
        finally:
            self.topk = chain_topk
        self.decisions.mark("verified")
        under_way = self.decisions.round
        assert under_way is not None
        under_way.this.gamma = gamma
        if gamma:
            drafted, said = (of.view(size, -1) for of in (tree.draft_token, result.next_token_ids))
            under_way.said = Letter(torch.cat((drafted[:, 1 : gamma + 1], said[:, : gamma + 1]), dim=1))
        return result

    def on_verify_complete_cpu(self, num_correct_drafts_per_req: list[int], batch_size: int = 0) -> None:
        if (ended := self.decisions.finish(num_correct_drafts_per_req)) is not None:
            this = ended.this
            for row, request in enumerate(ended.requests):
                siblings = [] if this.siblings is None else this.siblings[row].sum(axis=1).tolist()
                hit = this.accepted[row] + 1 if this.sibling_hits[row] else 0
                _tell(request, (this.gamma, siblings, hit))
            self._costs.keep(self.decisions.policy)


def _tell(request: Any, values: tuple[Any, ...]) -> None:
    """SGLang hands on a value for every token, and to a stream those of its new ones: here is the round's first."""
    if request.finished():
        return
    if request.customized_info is None:
        request.customized_info = {}
    for name, value in zip(TOLD, values, strict=True):
        known = request.customized_info.setdefault(name, [])
        known += [None] * (len(request.output_ids) - len(known)) + [value]


def _level(config: Config, target: Any) -> int:
    """The target's compression level."""
    if config.compression is not None:
        return compression_level(config.compression)
    try:
        return detect_level(target.model_config.hf_config)
    except SpecKVError as error:
        raise LaunchError(f"speckv: {error} in the file of --speculative-adaptive-config") from None


def _no_switches(record: logging.LogRecord) -> bool:
    """SGLang logs every switch of the width, which here may be one a round."""
    return not str(record.msg).startswith("Switch adaptive runtime state")


@contextmanager
def _replaced(module: Any, name: str, ours: type) -> Iterator[None]:
    """SGLang's workers name their draft worker's class; there is no factory to override."""
    original = getattr(module, name)
    setattr(module, name, ours)
    try:
        yield
    finally:
        setattr(module, name, original)

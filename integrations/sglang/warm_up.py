"""What rounds take, timed at start-up: the worker's own rounds, over requests that nobody sent.

Their KV slots are taken from the empty pools and given back; what is in these does not matter for the time it takes.
"""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.speculative.eagle_info import EagleDraftInput
from sglang.srt.speculative.eagle_utils import get_draft_recurrent_hidden_state_spec

from speckv.controller.curve import LEAST_MS, Costs
from speckv.controller.policy import Policy, Round
from speckv.integrations.sglang.decisions import Decisions
from speckv.integrations.sglang.metrics import Metrics
from speckv.integrations.sglang.owner import Owner
from speckv.integrations.sglang.ranks import Ranks
from speckv.integrations.sglang.timing import Stopwatch

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes that are timed, as far as the time reaches: in between, and beyond, costs are linear in the positions."""

CONTEXT = 16
"""Tokens of each of the requests."""

REPEATS = 3
SECONDS, SECONDS_ON_A_CPU = 8.0, 25.0
"""After so many no other round is begun, unless it is configured."""

Shape = tuple[int, int, int]
"""Requests, γ, and siblings of each."""

Times = dict[int, list[float]]
"""Milliseconds by rows."""


class _NoCache:
    """Stands for a prefix cache that holds nothing, can do nothing and does nothing."""

    def __init__(self, page_size: int, allocator: Any) -> None:
        self.page_size, self.token_to_kv_pool_allocator = page_size, allocator

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class _Scripted(Policy):
    """Shapes rounds as told, and keeps how long they took."""

    asks = False

    def __init__(self) -> None:
        self.shape: Shape = (1, 0, 0)
        self.taken: dict[Shape, list[Round]] = defaultdict(list)

    def begin(self, this: Round, room: int) -> int:
        return self.shape[1]

    def common(self, this: Round, allowed: Any) -> int:
        return self.shape[2]

    def observe(self, this: Round) -> None:
        self.taken[self.shape].append(this)


def timed_costs(worker: Owner, ranks: Ranks, seconds: float | None) -> Costs | None:
    """Median times by positions of a forward; None where ``seconds`` is 0.

    No round is begun that should end after ``seconds``, by what one of half as many requests took, but for one of each
    shape for a single request. The very first round of a process, which takes longer than any other, is among these
    seconds and not among the times.
    """
    policy = _Scripted()
    worker.meet(Decisions(policy, ranks, Stopwatch(worker.device), Metrics(False, {}, 1 << 30)))
    if seconds is None:
        seconds = SECONDS if worker.device.startswith("cuda") else SECONDS_ON_A_CPU
    if not seconds:
        return None
    end = time.monotonic() + seconds
    _round(worker, 1)  # in which kernels are chosen and memory is taken
    policy.taken.clear()
    plan, took = list(_shapes(worker)), dict[Shape, float]()
    for shape in plan * REPEATS:
        size, gamma, count = policy.shape = shape
        started = time.monotonic()
        expected = took.get(shape, 2 * took.get((size // 2, gamma, count), 0.0))
        needed = size == 1 and shape not in took
        if needed or ranks.agree(lambda: int(time.monotonic() + expected < end)):  # noqa: B023 - asked at once
            _round(worker, size)
            took[shape] = time.monotonic() - started
    return _medians(policy.taken)


def _shapes(worker: Owner) -> Iterator[Shape]:
    """Resting, half of the longest chain, and the largest tree, each for all of SIZES that the pools have room for."""
    states = worker.adaptive_controller
    half, ceiling = (states.candidate_steps[place] for place in (len(states.candidate_steps) // 2, -1))
    most = states.counts(ceiling)[-1]
    reserve = CONTEXT + worker.page_size + 3 * (1 + ceiling + most)
    slots, requests = worker.token_to_kv_pool_allocator.available_size(), worker.req_to_token_pool.available_size()
    sizes = [size for size in SIZES if size <= requests and size * reserve <= slots]
    for gamma, count in dict.fromkeys(((0, 0), (half, 0), (ceiling, most))):
        for size in sizes:
            yield size, gamma, count


def _batch(worker: Owner, size: int) -> ScheduleBatch:
    """``size`` requests that are about to begin a round, as the scheduler hands them to its worker."""
    requests = []
    for number in range(size):
        prompt = array("q", range(5, 5 + CONTEXT))
        request = Req(f"speckv-{number}", "", prompt, SamplingParams(temperature=0.0, max_new_tokens=1 << 10))
        request.full_untruncated_fill_ids, request.logprob_start_len = prompt, -1
        request.extend_end = CONTEXT
        requests.append(request)
    batch = ScheduleBatch.init_new(
        reqs=requests,
        req_to_token_pool=worker.req_to_token_pool,
        token_to_kv_pool_allocator=worker.token_to_kv_pool_allocator,
        tree_cache=_NoCache(worker.page_size, worker.token_to_kv_pool_allocator),
        model_config=worker.target_worker.model_runner.model_config,
        enable_overlap=False,
        spec_algorithm=worker.speculative_algorithm,
    )
    batch.prepare_for_extend()
    batch.prepare_for_decode()
    for request in requests:
        request.output_ids.append(5)
    return batch


@torch.inference_mode()
def _round(worker: Owner, size: int) -> None:
    device = worker.device
    try:
        batch = _batch(worker, size)
        width, dtype = get_draft_recurrent_hidden_state_spec(worker.draft_worker.draft_runner)
        batch.spec_info = EagleDraftInput(
            topk_p=torch.ones((size, 1), device=device),
            topk_index=torch.full((size, 1), 5, dtype=torch.int64, device=device),
            bonus_tokens=torch.full((size,), 5, dtype=torch.int32, device=device),
            hidden_states=None if width is None else torch.zeros((size, width), dtype=dtype, device=device),
        )
        accepted = worker.forward_batch_generation(batch).accept_lens.tolist()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        worker.decisions.finish([length - 1 for length in accepted])
    finally:
        worker.req_to_token_pool.clear()
        worker.token_to_kv_pool_allocator.clear()


def _medians(taken: dict[Shape, list[Round]]) -> Costs | None:
    verify, extend, draft = (defaultdict[int, Times](lambda: defaultdict(list)) for _ in range(3))
    for (size, gamma, _), rounds in taken.items():
        for this in rounds:
            assert this.verify_ms is not None
            verify[size][size + this.verified].append(this.verify_ms)
            if gamma > 1 and this.draft_ms is not None:
                draft[size][size].append(this.draft_ms / (gamma - 1))
            if not this.resting and this.extend_ms is not None:
                extend[size][size * (gamma + 1)].append(this.extend_ms)
    batches = {size: Costs(_median(extend[size] | draft[size]), _median(verify[size])) for size in [*verify]}
    one = batches.pop(1)
    return replace(one, batches=batches) if len(one.verify) > 1 and draft[1] else None


def _median(times: Times) -> dict[int, float]:
    return {rows: max(LEAST_MS, median(ms)) for rows, ms in sorted(times.items())}

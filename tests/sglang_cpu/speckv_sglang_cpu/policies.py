"""What tests do to a running server's decisions. ``SPECKV_TEST_STEER`` names a file that holds one of

real     the configured policy
random   every width in every round with any siblings beside it, prompts read by the draft or not
fixed    γ = 4 in every round
resting  γ = 4, but the draft rests for five rounds of six and reads no prompt
seldom   like resting, but for 39 rounds of 40
cold     like resting, without catching up: what SGLang's own switch does
nan      the configured policy, made to draft in every round, while all signals are NaN

``SPECKV_TEST_RANKS`` names a folder where every tensor-parallel rank notes its rounds. All but rank 0 then see other
signals than it, so that each would decide something else.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speckv.controller.policy import SIBLINGS, Policy, Round

NAME, RANKS = "SPECKV_TEST_STEER", "SPECKV_TEST_RANKS"


class Steered(Policy):
    """Does as the file says, which is read once a round; ``genuine`` is the configured policy."""

    def __init__(self, genuine: Policy, most: int, file: Path) -> None:
        self.genuine, self.most, self.file = genuine, most, file
        self.per_level = genuine.per_level
        self.random = random.Random(0)
        self.rounds = 0
        self.depth = 0
        self.how = "real"
        self.poisoned = False

    @property
    def fallbacks(self) -> int:  # type: ignore[override]
        return self.genuine.fallbacks

    @property
    def lets(self) -> bool:
        """Whether the configured policy decides."""
        return self.how in ("real", "nan")

    def begin(self, this: Round, room: int) -> int:
        self.how = self.file.read_text().strip()
        self.rounds += 1
        self.poisoned |= self.how == "nan"
        stale = [request.stale for request in this.requests]
        assert max(stale) <= this.position, f"{stale} tokens are new to the draft, of {this.position} at most"
        if self.lets:
            levels = self.genuine.begin(this, room)
            return levels or (self.most if self.how == "nan" else 0)
        if self.how == "random":
            self.depth = self.random.randint(0, self.most)  # each of them as often
            return self.random.randint(self.depth, self.most)
        return 4 if self.how == "fixed" or self.rounds % (40 if self.how == "seldom" else 6) == 0 else 0

    def deepen(self, this: Round) -> int:
        if self.lets:
            return self.genuine.deepen(this)
        drafted = len(this.levels)
        for level in this.levels:
            # A NaN of the mode nan stays with its request until the draft's next forward.
            assert level.shape == (this.size, 5)
            assert self.poisoned or ((level[:, 0] > -1e-3).all() and (level[:, 1] > 0).all())
            assert self.poisoned or (level[:, 1:].sum(axis=1) < 1.0001).all()
        if self.how != "random":
            return 4
        if drafted < self.depth:
            return self.depth
        return drafted - (self.random.random() < 0.3)

    def common(self, this: Round, allowed: Sequence[int]) -> int:
        if self.lets:
            return self.genuine.common(this, allowed)
        return self.random.choice(allowed) if self.how == "random" else 0

    def prefill(self, size: int, requests: int, tokens: int) -> bool:
        if self.lets:
            return self.genuine.prefill(size, requests, tokens)
        return self.how == "fixed" or (self.how == "random" and self.random.random() < 0.6)

    def caught_up(self, tokens: int, ms: float) -> None:
        self.genuine.caught_up(tokens, ms)

    def learnt(self) -> Any:
        return self.genuine.learnt()

    def ended(self, tokens: int) -> None:
        self.genuine.ended(tokens)

    def observe(self, this: Round) -> None:
        assert this.gamma <= len(this.levels) and all(accepted <= this.gamma for accepted in this.accepted)
        assert sum(this.accepted) + sum(this.sibling_hits) + this.size == this.emitted
        for row, (depth, rank) in enumerate(zip(this.accepted, this.ranks, strict=True)):
            assert (rank > 0) == (this.gamma > depth and row not in this.plain)
            assert not (row in this.plain and depth)
        if self.lets:
            self.genuine.observe(this)


def _note_rounds(folder: Path) -> None:
    """Have each rank write a line for every round: its shape, what came of it, and the entropies that the rank saw."""
    from speckv.integrations.sglang.rounds import Rounds

    genuine = Rounds.verify

    def verify(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        tree, this = batch.spec_info, self.decisions.round.this
        drafted, gamma = tree.draft_token.tolist(), self.speculative_num_steps
        result = genuine(self, batch, *args, **kwargs)
        shape = {"requests": len(batch.reqs), "gamma": gamma, "drafted": drafted}
        came = {"accepted": result.accept_lens.tolist(), "said": result.next_token_ids.tolist()}
        who = [(request.rid, list(request.origin_input_ids)) for request in batch.reqs]
        line = {"round": shape | came, "who": who, "caught_up": this.caught_up}
        line["saw"] = [level[:, 0].tolist() for level in this.levels]
        with (folder / f"rank-{torch.distributed.get_rank()}").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        return result

    Rounds.verify = verify  # type: ignore[method-assign]


def register() -> None:
    if not (path := os.environ.get(NAME)):
        return
    from speckv.integrations.sglang import decisions, drafter, resting, tree

    file = Path(path)
    genuine_policy, genuine_pack = decisions.build_policy, drafter.pack
    genuine_best = drafter.best_siblings

    def steered(config: Any, controller: Any, level: int, costs: Any, max_gamma: int, *rest: Any) -> Policy:
        return Steered(genuine_policy(config, controller, level, costs, max_gamma, *rest), max_gamma, file)

    draws = torch.Generator().manual_seed(0)  # the same on every rank, whatever else they draw

    def any_siblings(levels: Tensor, count: int) -> Tensor:
        if file.read_text().strip() != "random":
            return genuine_best(levels, count)
        most = levels.shape[1] * SIBLINGS
        places = torch.rand(levels.shape[0], most, generator=draws).to(levels.device).argsort(1)[:, :count]
        absent = tree.others(levels).flatten(1).gather(1, places) < 0
        return torch.where(absent, most, places).sort(1).values

    def pack(tokens: Any, logits: Any) -> Any:
        packed = genuine_pack(tokens, logits)
        if file.read_text().strip() == "nan":
            packed[:, 1:] = float("nan")
        if noted and torch.distributed.get_rank():
            packed[:, 1:] = torch.rand_like(packed[:, 1:])
        return packed

    genuine_catch_up = resting.RestingDrafter._catch_up

    def catch_up(self: Any, batch: Any) -> None:
        if getattr(self.decisions.policy, "how", "") != "cold":
            genuine_catch_up(self, batch)

    noted = os.environ.get(RANKS)
    if noted:
        _note_rounds(Path(noted))
    decisions.build_policy = steered
    drafter.best_siblings = any_siblings
    drafter.pack = pack
    resting.RestingDrafter._catch_up = catch_up

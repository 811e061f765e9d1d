"""The policies to be beaten, behind the same interface as ours. A new one is a file here and a line in ``_MAKERS``.

Each file states its source and restates the rule; none of it is copied code. What a framework measures is
measured here on :class:`~speckv.controller.policy.Round`.

Left out: vLLM's table by batch size (``num_speculative_tokens_per_batch_size``, pull request 32374) has no
defaults, and at batch 1 any table is one fixed γ, so ``fixed-0`` … ``fixed-16`` hold it; AdaEDL, see
:mod:`speckv.benchmarks.baselines.svip`. The clairvoyant bound is no policy, as it sees the future: it belongs to
the replay.
"""

from __future__ import annotations

from collections.abc import Callable

from speckv.benchmarks.baselines.bandit import Bandit
from speckv.benchmarks.baselines.hf_default import HFDefault
from speckv.benchmarks.baselines.hf_heuristic import HFHeuristic
from speckv.benchmarks.baselines.p_min import PMin
from speckv.benchmarks.baselines.sglang_ema import SGLangEMA
from speckv.benchmarks.baselines.svip import SVIP
from speckv.controller.errors import SpecKVError
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policies.learned import Controller
from speckv.controller.policies.tokens import TokensPolicy
from speckv.controller.policy import Policy

FIXED = {f"fixed-{gamma}": gamma for gamma in range(17)}

_MAKERS: dict[str, Callable[[], Policy]] = {
    "hf-default": HFDefault,
    "hf-heuristic": HFHeuristic,
    "p-min": PMin,
    "svip": SVIP,
    "sglang-ema": SGLangEMA,
    "bandit": Bandit,
}

PEERS: tuple[str, ...] = ("plain", *FIXED, *_MAKERS, "paper")
"""The peers' names, in the order of reports."""


def make_peer(name: str, controller: Controller | None = None, level: int = 0) -> Policy:
    """A new policy by its name in ``PEERS``.

    Only ``paper`` needs the ``controller`` and the target's compression ``level`` (0, 1, 2). Raises SpecKVError
    on an unknown name and on ``paper`` without a controller.
    """
    if name == "plain":
        return FixedPolicy(0)
    if name in FIXED:
        return FixedPolicy(FIXED[name])
    if name == "paper":
        if controller is None:
            raise SpecKVError("paper: needs a controller")
        return TokensPolicy(controller, level)
    if name not in _MAKERS:
        raise SpecKVError(f"peer {name}: must be one of {', '.join(PEERS)}")
    return _MAKERS[name]()

"""The policies that shape rounds. A new one is a file here and a line in :func:`make_policy`."""

from __future__ import annotations

from speckv.controller.cost import CostModel
from speckv.controller.errors import SpecKVError
from speckv.controller.policies.fixed import FixedPolicy
from speckv.controller.policies.learned import Controller
from speckv.controller.policies.throughput import HIGHEST_CEILING, ThroughputPolicy
from speckv.controller.policies.tokens import PAPER_GAMMAS, TokensPolicy
from speckv.controller.policy import Policy

OBJECTIVES = ("throughput", "tokens")
MODES = ("token", "step")


def make_policy(
    controller: Controller | None,
    objective: str,
    mode: str,
    compression: int,
    cost: CostModel,
    gamma: int | None = None,
    max_gamma: int | None = None,
    siblings: bool = True,
    fallback_gamma: int = 4,
) -> Policy:
    """The policy for an objective and a mode, or a fixed ``gamma``; raises SpecKVError on an unknown word.

    ``siblings`` says whether the loop can verify a tree.
    """
    if gamma is not None:
        return FixedPolicy(gamma)
    if controller is None:
        raise SpecKVError("a controller is needed unless gamma is fixed")
    if objective not in OBJECTIVES:
        raise SpecKVError(f"objective {objective}: must be one of {', '.join(OBJECTIVES)}")
    if mode not in MODES:
        raise SpecKVError(f"mode {mode}: must be one of {', '.join(MODES)}")
    if max_gamma is not None and not 1 <= max_gamma <= HIGHEST_CEILING:
        raise SpecKVError(f"max_gamma {max_gamma}: must be within 1 … {HIGHEST_CEILING}")
    if objective == "tokens":
        return TokensPolicy(controller, compression, max_gamma or PAPER_GAMMAS[-1], fallback_gamma)
    ceiling = max_gamma or HIGHEST_CEILING
    return ThroughputPolicy(controller, compression, cost, ceiling, mode == "token", siblings, fallback_gamma)

"""The public ``attach``: builds the policy that a user asks for and hooks it into a target model."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from speckv.controller.cost import CostModel
from speckv.controller.curve import Costs
from speckv.controller.errors import SpecKVError
from speckv.controller.features import compression_level
from speckv.controller.policies import make_policy
from speckv.controller.policy import Policy
from speckv.integrations.compression import detect_level
from speckv.integrations.cost_store import remembered
from speckv.integrations.runtime import Controller
from speckv.integrations.transformers.branches import can_branch
from speckv.integrations.transformers.calibrate import about
from speckv.integrations.transformers.hook import attach_policy
from speckv.integrations.transformers.loop import RoundListener
from speckv.integrations.transformers.pairing import check_models, unwrapped


def attach(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    controller: str | Path | Controller = "default",
    *,
    objective: str = "throughput",
    mode: str = "token",
    gamma: int | None = None,
    max_gamma: int | None = None,
    siblings: bool = True,
    compression: str | None = None,
    costs: Costs | None = None,
    policy: Policy | None = None,
    listener: RoundListener | None = None,
    same_tokenizer: bool | None = None,
    provider: str = "cpu",
) -> None:
    """Let ``target.generate(..., assistant_model=draft)`` choose its speculation length; nothing else changes.

    Parameters
    ----------
    controller : ``"default"``, the path of an ``.onnx`` artefact, or a loaded :class:`Controller`.
    objective : ``"throughput"`` (tokens per second, our default) or ``"tokens"`` (tokens per step, the paper's).
    mode : ``"token"`` decides after every drafted token, ``"step"`` once before drafting. ``tokens`` is per step.
    gamma : a fixed γ instead of any controller.
    max_gamma : the most tokens a round may draft, 1 … 20; by default 20.
    siblings : whether a round may verify other tokens beside those drafted, where they pay and the target's attention
        takes a mask (:func:`can_branch`); False drafts chains.
    compression : ``fp16``, ``int8`` or ``nf4`` where it cannot be read from the target's configuration.
    costs : what forwards take here (``calibrate(target, draft)``); by default what ``speckv calibrate`` has remembered
        of this pair on this machine, else a guess from the models' sizes. The loop's own timings refine either.
    policy : a policy of your own (see ``speckv.controller.policy``), instead of all of the above.
    listener : called with every finished ``Round``.
    same_tokenizer : True when the vocabularies are one, padded differently, and their files are not at hand.

    Output is the target's own: greedy token for token, sampling in distribution. What the policy learns is kept until
    :func:`detach`. Raises SpecKVError when the pair, the artefact or the installed transformers does not fit.
    """
    target, draft = unwrapped(target), unwrapped(draft)
    check_models(target, draft)
    if policy is None:
        loaded = None
        if gamma is None:
            loaded = controller if isinstance(controller, Controller) else Controller.load(controller, provider)
        trees = siblings and can_branch(target)
        level = compression_level(compression) if compression else detect_level(target.config)
        if costs is None:
            costs = remembered(about(target, draft)) or Costs.from_sizes(_bytes(target), _bytes(draft))
        policy = make_policy(loaded, objective, mode, level, CostModel(costs), gamma, max_gamma, trees)
    elif gamma is not None:
        raise SpecKVError("gamma and policy contradict each other; give one of them")
    attach_policy(target, draft, policy, listener, same_tokenizer)


def _bytes(model: PreTrainedModel) -> float:
    """What one forward reads: every weight but the embedding table, which it only looks up in."""
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    embedding = getattr(model.get_input_embeddings(), "weight", None)
    if embedding is None or embedding is getattr(model.get_output_embeddings(), "weight", None):
        return float(weights)
    return float(weights - embedding.numel() * embedding.element_size())

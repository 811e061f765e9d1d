"""SGLang's entry point: registers the algorithm, or says why it cannot."""

from __future__ import annotations

import logging

logger = logging.getLogger("speckv")


def register() -> None:
    """Make ``--speculative-algorithm SPECKV`` known and have heads ask us, if all that it relies on is there.

    Else say what is missing.

    Called by SGLang in each of its processes. An exception here would only be logged by it, so nothing is
    raised: the algorithm then stays unknown and a server asked for it does not start.
    """
    from speckv.integrations.sglang.compatibility import explain, mismatches

    if problems := mismatches():
        logger.error("speckv: %s", explain(problems))
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    from speckv.integrations.sglang.algorithm import SpecKVAlgorithm, make_worker, validate
    from speckv.integrations.sglang.backend import CHOOSES, for_trees
    from speckv.integrations.sglang.config import NAME
    from speckv.integrations.sglang.heads import HOOKS

    SpeculativeAlgorithm.register(
        NAME, supports_overlap=True, validate_server_args=validate, spec_class=SpecKVAlgorithm
    )(make_worker)
    for around, ours in ({CHOOSES: for_trees} | HOOKS).items():
        HookRegistry.register(around, ours, HookType.AROUND)

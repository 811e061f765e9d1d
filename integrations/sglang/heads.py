"""SPECKV with a head of the target: where SGLang's own EAGLE, EAGLE3 and NEXTN are to take our worker.

Asked for by ``--speculative-adaptive --speculative-adaptive-config FILE`` with an object "speckv" in FILE, which may be
empty. Without it none of these hooks changes anything. The algorithm's name stays SGLang's, since its code compares it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sglang.srt.arg_groups.overrides import declare_resolution, resolving_view
from sglang.srt.speculative.adaptive_spec_params import adaptive_unsupported_reason

from speckv.integrations.sglang.combinations import refuse, settled
from speckv.integrations.sglang.config import (
    HEADS,
    MOST,
    NAME,
    LaunchError,
    asked_config,
    ceiling,
    load_controller,
    read_head_config,
    tree_sizes,
)

UNSUPPORTED = (
    ("speculative_draft_window_size", "--speculative-draft-window-size: a tree's sibling has another window"),
)
"""Server arguments that a head cannot be combined with, and how to name them."""


def settle(original: Callable[..., None], algorithm: Any, server_args: Any) -> None:
    """Refuse what cannot be, where SGLang would go on without deciding; and say how far may be drafted."""
    view = resolving_view(server_args)
    config = read_head_config(view.speculative_adaptive_config)
    if config is None:
        original(algorithm, server_args)
        return
    if view.speculative_algorithm not in HEADS:
        raise LaunchError(
            f'speckv: "speckv" in {view.speculative_adaptive_config} is for {", ".join(HEADS)}, not for '
            f"{view.speculative_algorithm}; for a separate draft model take --speculative-algorithm {NAME}"
        )
    reason = adaptive_unsupported_reason(server_args)
    if reason is not None:
        raise LaunchError(f"speckv: {view.speculative_algorithm} cannot be decided upon: {reason}")
    if not view.speculative_adaptive:
        raise LaunchError(
            f'speckv: "speckv" in {view.speculative_adaptive_config} takes effect with --speculative-adaptive only; '
            "add that flag"
        )
    refuse(view, view.speculative_algorithm, UNSUPPORTED)
    load_controller(config)
    steps = ceiling(config, server_args.speculative_num_steps)  # as given, not SGLang's own choice
    declare_resolution(server_args, "speckv", **settled(view, steps))
    original(algorithm, server_args)


def candidates(original: Callable[..., Any], path: str | None) -> Any:
    """The lengths that SGLang is to take for possible: any, without saying them in the file."""
    if read_head_config(path) is None:
        return original(path)
    entry = {"candidate_steps": list(range(MOST + 1))}
    return {"1": entry}, {1: entry}


def most_tokens(original: Callable[..., int | None], algorithm: Any, server_args: Any) -> int | None:
    """SGLang reserves KV slots for so many tokens of a request and round; a tree's may be more than a chain's."""
    view = resolving_view(server_args)
    config = asked_config(view)
    if config is None or view.speculative_num_steps is None:
        return original(algorithm, server_args)
    steps: int = view.speculative_num_steps
    return max(int(steps) + 1, *tree_sizes(config, steps), 0)


def worker(original: Callable[..., Any], algorithm: Any, server_args: Any) -> Any:
    """Our worker, imported only where it is needed."""
    if asked_config(resolving_view(server_args)) is None:
        return original(algorithm, server_args)
    from speckv.integrations.sglang.worker import HeadWorker

    return HeadWorker


_ALGORITHM = "sglang.srt.speculative.spec_info.SpeculativeAlgorithm"

HOOKS: dict[str, Callable[..., Any]] = {
    f"{_ALGORITHM}.handle_server_args": settle,
    f"{_ALGORITHM}.resolve_max_speculative_num_draft_tokens": most_tokens,
    f"{_ALGORITHM}.create_worker": worker,
    "sglang.srt.speculative.adaptive_spec_params._load_adaptive_config": candidates,
}
"""By what of SGLang they are around."""

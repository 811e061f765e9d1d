"""Whether a draft can propose tokens for a target: what a launch is to refuse in one line."""

from __future__ import annotations

from typing import Any

from sglang.srt.utils.hf_transformers_utils import get_config, get_context_length, get_hf_text_config, get_tokenizer

from speckv.integrations.sglang.config import LaunchError


def check_pair(server_args: Any) -> None:
    """Raise LaunchError where vocabularies or the draft's positions do not fit, if the models can be read at all.

    SGLang finds a part of this out itself, once both models are loaded, and ends in a traceback of its scheduler.
    """
    target, draft = server_args.model_path, server_args.speculative_draft_model_path
    remote = {"trust_remote_code": server_args.trust_remote_code}
    try:
        configs = [get_hf_text_config(get_config(path, **remote)) for path in (target, draft)]
        sizes = [int(config.vocab_size) for config in configs]
        own, reach = (int(get_context_length(config)) for config in configs)
    except Exception:  # whatever a loader raises: SGLang says it better where it loads them
        return
    if sizes[0] != sizes[1]:
        raise LaunchError(
            f"speckv: vocabulary sizes differ (target {target}: {sizes[0]}, draft {draft}: {sizes[1]}), which SGLang "
            "does not serve; take a draft of the same size of vocabulary"
        )
    context = server_args.context_length or own
    if context > reach:
        raise LaunchError(
            f"speckv: the draft {draft} takes {reach} tokens of context and the target is served with {context}; "
            f"add --context-length {reach}, or take a draft with more"
        )
    if not server_args.skip_tokenizer_init and _vocabulary(server_args, server_args.tokenizer_path) != _vocabulary(
        server_args, draft
    ):
        raise LaunchError(
            f"speckv: the draft {draft} has another tokenizer than the target {target}; take one of the same family"
        )


def _vocabulary(server_args: Any, path: str) -> dict[str, int]:
    made = get_tokenizer(
        path, tokenizer_mode=server_args.tokenizer_mode, trust_remote_code=server_args.trust_remote_code
    )
    found: dict[str, int] = made.get_vocab()
    return found

"""What of SGLang the plugin relies on, in one list, by name and signature."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from speckv.integrations.installed import version

TESTED_VERSION = "0.5.23"

# Module, symbol in it, and the parameters that are passed to it or taken from it; None where it is not called.
RELIED_ON: tuple[tuple[str, str, str | None], ...] = (
    ("speculative.spec_info", "SpeculativeAlgorithm.register", "name supports_overlap validate_server_args spec_class"),
    ("speculative.spec_info", "SpeculativeAlgorithm.STANDALONE", None),
    (
        "speculative.spec_info",
        "SpeculativeAlgorithm.create_future_map",
        "self device req_to_token_pool needs_cpu_seq_lens needs_confidence_relay",
    ),
    ("speculative.spec_info", "SpeculativeAlgorithm.handle_server_args", "self server_args"),
    ("speculative.spec_info", "SpeculativeAlgorithm.resolve_max_speculative_num_draft_tokens", "self server_args"),
    ("speculative.spec_info", "SpeculativeAlgorithm.create_worker", "self server_args"),
    ("speculative.adaptive_spec_params", "_load_adaptive_config", "cfg_path"),
    ("speculative.adaptive_spec_params", "adaptive_unsupported_reason", "server_args"),
    ("speculative.eagle_worker_v2", "EagleDraftWorker", None),
    (
        "speculative.eagle_worker_v2",
        "EAGLEWorkerV2.__init__",
        "self server_args gpu_id nccl_port target_worker",
    ),
    ("speculative.eagle_utils", "get_draft_recurrent_hidden_state_spec", "model_runner"),
    ("layers.logits_processor", "LogitsProcessorOutput.__init__", "hidden_states"),
    ("arg_groups.overrides", "declare_resolution", "server_args source"),
    ("arg_groups.overrides", "resolving_view", None),
    ("speculative.spec_registry", "CustomSpecAlgo.handle_server_args", "self server_args"),
    ("speculative.spec_registry", "CustomSpecAlgo.is_standalone", "self"),
    (
        "speculative.spec_registry",
        "CustomSpecAlgo.resolve_max_speculative_num_draft_tokens",
        "self server_args",
    ),
    ("speculative.spec_registry", "CustomSpecAlgo.supports_grammar_overlap", "self"),
    ("speculative.standalone_worker_v2", "StandaloneDraftWorker", None),
    (
        "speculative.standalone_worker_v2",
        "StandaloneDraftWorker.alloc_memory_pool",
        "self memory_pool_config req_to_token_pool token_to_kv_pool_allocator",
    ),
    ("speculative.standalone_worker_v2", "StandaloneDraftWorker._rebuild_topk1_chain_buffers", "self"),
    ("speculative.standalone_worker_v2", "StandaloneDraftWorker.draft", "self batch"),
    ("speculative.standalone_worker_v2", "StandaloneDraftWorker.draft_forward", "self forward_batch"),
    ("speculative.standalone_worker_v2", "StandaloneDraftWorker._draft_extend_for_decode", "self batch batch_result"),
    (
        "speculative.standalone_worker_v2",
        "StandaloneDraftWorker._draft_extend_for_prefill",
        "self batch target_hidden_states next_token_ids mm_input_embeds kv_loc_plan",
    ),
    (
        "speculative.standalone_worker_v2",
        "StandaloneWorkerV2.__init__",
        "self server_args gpu_id nccl_port target_worker",
    ),
    ("speculative.standalone_worker_v2", "StandaloneWorkerV2.init_cuda_graphs", "self"),
    (
        "speculative.standalone_worker_v2",
        "StandaloneWorkerV2.build_adaptive_runtime_state",
        "self speculative_num_steps speculative_num_draft_tokens",
    ),
    ("speculative.standalone_worker_v2", "StandaloneWorkerV2.apply_runtime_state", "self state"),
    ("speculative.standalone_worker_v2", "StandaloneWorkerV2.forward_batch_generation", "self batch"),
    ("speculative.standalone_worker_v2", "StandaloneWorkerV2.verify", "self batch"),
    ("speculative.standalone_worker_v2", "StandaloneWorkerV2.activate_step_by_batch", "self batch_size"),
    (
        "speculative.standalone_worker_v2",
        "StandaloneWorkerV2.on_verify_complete_cpu",
        "self num_correct_drafts_per_req batch_size",
    ),
    ("speculative.standalone_worker_v2", "StandaloneWorkerV2._build_trivial_verify_input", "self batch"),
    ("speculative.standalone_worker_v2", "StandaloneWorkerV2._stub_skipped_draft_extend", "self batch batch_output"),
    ("speculative.adaptive_runtime_state", "AdaptiveController.__init__", "self worker policy"),
    ("speculative.adaptive_runtime_state", "AdaptiveController.init_states", "self cuda_graph_bs"),
    ("speculative.adaptive_runtime_state", "AdaptiveController.activate_step_by_batch", "self batch_size"),
    (
        "speculative.adaptive_runtime_state",
        "SpecRuntimeState.__init__",
        "speculative_num_steps speculative_num_draft_tokens target_attn_backend target_graph_runner",
    ),
    (
        "speculative.eagle_info",
        "EagleDraftInput.__init__",
        "self topk_p topk_index bonus_tokens hidden_states dsa_topk_indices cuda_graph_compatible",
    ),
    (
        "speculative.eagle_info",
        "EagleVerifyInput.__init__",
        "draft_token custom_mask positions retrieve_index retrieve_next_token retrieve_next_sibling spec_steps topk"
        " draft_token_num prepared_out_cache_loc kv_loc_plan num_tokens_per_req",
    ),
    ("speculative.eagle_utils", "tree_speculative_sampling_target_only", None),
    ("sampling.sampling_batch_info", "SamplingBatchInfo.__init__", "min_ps need_min_p_sampling"),
    *(
        ("sampling.sampling_params", f"SamplingParams.{name}", None)
        for name in ("frequency_penalty", "presence_penalty", "repetition_penalty", "min_new_tokens")
    ),
    ("speculative.eagle_utils", "TreeMaskMode.QLEN_ONLY", None),
    ("speculative.eagle_utils", "default_tree_mask_mode", ""),
    (
        "speculative.eagle_utils",
        "per_step_draft_out_cache_loc",
        "out_cache_loc batch_size topk num_steps",
    ),
    ("model_executor.forward_batch_info", "ForwardMode.EXTEND", None),
    ("model_executor.forward_context", "ForwardContext.__init__", "self attn_backend"),
    ("model_executor.forward_context", "forward_context", "ctx forward_batch"),
    ("layers.attention.base_attn_backend", "AttentionBackend.verify_mask", None),
    ("managers.utils", "GenerationBatchResult.__init__", "next_token_ids"),
    ("arg_groups.overrides", "get_default_attn_backend", "server_args use_mla_backend model_config"),
    ("plugins.hook_registry", "HookRegistry.register", "target hook hook_type"),
    ("utils.hf_transformers_utils", "get_config", "trust_remote_code"),
    ("utils.hf_transformers_utils", "get_context_length", "config"),
    ("utils.hf_transformers_utils", "get_hf_text_config", "config"),
    ("utils.hf_transformers_utils", "get_tokenizer", "tokenizer_mode trust_remote_code"),
    ("managers.schedule_batch", "Req.__init__", "rid origin_input_text origin_input_ids sampling_params"),
    (
        "managers.schedule_batch",
        "ScheduleBatch.init_new",
        "reqs req_to_token_pool token_to_kv_pool_allocator tree_cache model_config enable_overlap spec_algorithm",
    ),
    ("managers.schedule_batch", "ScheduleBatch.prepare_for_extend", "self"),
    ("managers.schedule_batch", "ScheduleBatch.prepare_for_decode", "self"),
    ("distributed.parallel_state", "GroupCoordinator.broadcast", "self input_ src"),
    ("environ", "envs.SGLANG_DISABLE_DRAFT_EXTEND_CUDA_GRAPH", None),
    ("runtime_context", "get_spec", ""),
    ("runtime_context", "get_parallel", ""),
    ("runtime_context", "get_observability", ""),
)


def installed() -> str | None:
    """The installed SGLang's version, None where there is none."""
    return version("sglang")


def mismatches() -> list[str]:
    """What the installed SGLang lacks of what the plugin relies on; empty when all is there."""
    problems = []
    for module, name, parameters in RELIED_ON:
        try:
            symbol: Any = importlib.import_module(f"sglang.srt.{module}")
            for part in name.split("."):
                symbol = getattr(symbol, part)
        except ImportError as error:
            problems.append(f"sglang.srt.{module} cannot be imported ({error})")
            continue
        except AttributeError:
            problems.append(f"{name} is gone")
            continue
        if parameters is None:
            continue
        missing = set(parameters.split()) - set(inspect.signature(symbol).parameters)
        if missing:
            problems.append(f"{name} no longer takes {', '.join(sorted(missing))}")
    return list(dict.fromkeys(problems))


def explain(problems: list[str]) -> str:
    """One line with the symbols, the version and the remedy."""
    return (
        f"sglang {installed()} does not fit: {'; '.join(problems)}; SPECKV was not registered; "
        f"pip install sglang=={TESTED_VERSION}, or a newer speckv"
    )

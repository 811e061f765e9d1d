"""What ``architectures.py`` shrinks configurations to, and what each type needs besides."""

from __future__ import annotations

from typing import Any

VOCABULARY = 256
SIZES: dict[int, str] = {
    64: "hidden_size d_model n_embd dim emb_dim embedding_dim embedding_size input_embedding_size "
    "output_embedding_size word_embed_proj_dim intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim "
    "n_inner dim_ff dff d_inner ffn_hidden_size feed_forward_size pronunciation_embed_dim shape_embed_dim "
    "attention_hidden_size lru_width backbone_hidden_size mlp_dim dense_intermediate_size "
    "intermediate_size_mlp embed_dim",
    32: "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size "
    "expert_ffn_hidden_size moe_shared_expert_intermediate_size router_hidden_size hc_lowrank dim_model_base "
    "mamba_headdim",
    16: "query_pre_attn_scalar index_n_heads head_dim v_head_dim global_head_dim kv_channels dim_head d_head "
    "attention_head_size d_kv swa_head_dim kv_lora_rank q_lora_rank o_lora_rank index_head_dim "
    "linear_key_head_dim linear_value_head_dim linear_head_dim sliding_window attention_window_size "
    "window_size attention_chunk_size local_attention mamba_d_head mamba_head_dim time_step_rank "
    "mamba_dt_rank adapter_rank laurel_rank swa_v_head_dim hidden_size_per_layer_input gated_norm_rank",
    8: "qk_rope_head_dim qk_nope_head_dim index_topk state_size mamba_d_state ssm_state_size mamba_n_heads "
    "mamba_num_heads loop_gate_rank num_centroids",
    4: "num_attention_heads n_head num_heads n_heads decoder_attention_heads encoder_attention_heads "
    "attention_heads num_decoder_attention_heads num_encoder_attention_heads num_experts n_routed_experts "
    "num_local_experts moe_num_experts linear_num_value_heads linear_num_heads num_swa_attention_heads "
    "o_groups swa_num_attention_heads num_query_groups attention_head_count",
    2: "num_key_value_heads num_kv_heads linear_num_key_heads num_experts_per_tok num_experts_per_token moe_k "
    "moe_topk top_k_experts num_key_value_groups num_global_key_value_heads n_mamba_heads "
    "swa_num_key_value_heads",
    1: "n_group topk_group num_expert_group n_groups mamba_n_groups mamba_ngroups n_shared_experts "
    "num_shared_experts moe_num_shared_experts first_k_dense_replace num_dense_layers",
    VOCABULARY: "vocab_size decoder_vocab_size unpadded_vocab_size vocab_size_per_layer_input pronunciation_vocab_size "
    "shape_vocab_size n_token",
    512: "max_position_embeddings n_positions n_ctx max_seq_len context_length max_target_positions model_max_length",
}
BY_NAME = {name: size for size, names in SIZES.items() for name in names.split()}
FACTORS = {
    "logits_scaling": 4.0,
    "residual_multiplier": 0.7,
    "embedding_multiplier": 2.0,
    "attention_multiplier": 0.25,
    "final_logit_softcapping": 5.0,
    "lm_head_multiplier": 0.5,
}
LAYERS = [
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "decoder_layers",
    "encoder_layers",
    "num_decoder_layers",
    "num_encoder_layers",
    "num_blocks",
    "depth",
]
SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "clip_vision_model": {"image_size": 64},
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dory": {
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "n_input_layers": 1,
        "n_recurrent_layers": 1,
        "n_output_layers": 1,
    },
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_text": {
        "head_dim": 16,
        "num_key_value_heads": 4,
        "per_layer_config": {"02": {"kv_lora_rank": 8, "qk_nope_head_dim": 8}},
    },
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_d_head": 16},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "intermediate_size": [64] * 4,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
        "num_kv_shared_layers": 2,
    },
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "moshi": {"sliding_window": 512},
    "ministral": {"head_dim": 16},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "qwen2_5_vl_text": SECTIONS,
    "qwen2_vl_text": SECTIONS,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"axial_pos_embds_dim": [32, 32], "axial_pos_shape": [16, 32], "num_buckets": 8},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 5,
        "layers_block_type": None,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "mamba_dt_rank": 4,
    },
    "zamba2": {"attention_hidden_size": 128, "attention_head_dim": 32, "mamba_headdim": 16, "n_mamba_heads": 8},
}
SEEDS: dict[str, tuple[float, int]] = {
    "apertus": (1.0, 1),
    "apertus1p5_text": (1.0, 1),
    "bert": (1.0, 0),
    "biogpt": (8.0, 0),
    "blenderbot-small": (4.0, 1),
    "bloom": (4.0, 1),
    "ctrl": (4.0, 2),
    "gemma3": (2.0, 1),
    "git": (1.0, 0),
    "gpt-sw3": (4.0, 1),
    "gpt2": (4.0, 1),
    "marian": (1.0, 0),
    "nanochat": (1.0, 0),
    "plbart": (2.0, 1),
    "reformer": (4.0, 3),
    "roformer": (8.0, 0),
    "xglm": (8.0, 3),
    "xlm": (1.0, 1),
    "xlnet": (4.0, 3),
    "xmod": (2.0, 1),
    "zamba": (4.0, 3),
    "zaya": (2.0, 1),
}
SKIPPED: dict[str, str] = {
    "blt": "transformers' own generate makes a cache of a configuration that has no num_hidden_layers",
    "dots3_note": "its towers' sizes are tied to each other; the text model is dots3_note_text",
    "gemma3n": "its vision tower needs timm; the text model is gemma3n_text",
    "gemma4_assistant": "a head that drafts from its target's cache, no model of its own",
    "gemma4_unified_assistant": "a head that drafts from its target's cache, no model of its own",
    "musicgen": "makes audio codes, not text",
    "musicgen_melody": "makes audio codes, not text",
}

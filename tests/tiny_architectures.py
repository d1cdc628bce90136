"""Tiny models of the architectures whose rows mlx-lm runs in other ways than plain attention's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litellm_mlx.kvcache.layers import Batching
from tests.tiny_model import VOCAB_SIZE, make_tiny_model

_SLIDING = ["sliding_attention", "full_attention"]
_BLOCK = {
    "attention": {"n_heads_in_group": 2},
    "ffn": {"ffn_mult": 1.5},
}
_LLAMA4 = {
    **{"attention_bias": False, "attention_chunk_size": 24, "head_dim": 16, "hidden_size": 64},
    **{"interleave_moe_layer_step": 2, "intermediate_size": 64, "intermediate_size_mlp": 64},
    **{"max_position_embeddings": 2048, "model_type": "llama4", "num_attention_heads": 4},
    **{"num_experts_per_tok": 1, "num_hidden_layers": 4, "num_key_value_heads": 2},
    **{"num_local_experts": 2, "rms_norm_eps": 1e-4, "rope_scaling": None, "rope_theta": 1000},
    **{"use_qk_norm": True, "vocab_size": VOCAB_SIZE},
}
_GEMMA3N = {
    **{"model_type": "gemma3n", "hidden_size": 64, "num_hidden_layers": 4, "rms_norm_eps": 1e-5},
    **{"intermediate_size": 64, "num_attention_heads": 4, "head_dim": 16, "altup_num_inputs": 4},
    **{"vocab_size": VOCAB_SIZE, "num_key_value_heads": 2, "num_kv_shared_layers": 2},
    **{"vocab_size_per_layer_input": VOCAB_SIZE, "sliding_window": 48, "altup_coef_clip": 1.0},
    **{"max_position_embeddings": 2048, "rope_local_base_freq": 1.0, "rope_theta": 1000.0},
    **{"final_logit_softcapping": 30.0, "layer_types": 2 * _SLIDING, "laurel_rank": 8},
    **{"activation_sparsity_pattern": [0.5] * 4, "hidden_size_per_layer_input": 64},
    **{"altup_correct_scale": True, "altup_active_idx": 0},
}
_MINIMAX_M3 = {
    **{"hidden_size": 64, "intermediate_size": 32, "dense_intermediate_size": 64, "head_dim": 16},
    **{"shared_intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2},
    **{"num_hidden_layers": 2, "num_local_experts": 2, "num_experts_per_tok": 1},
    **{"vocab_size": VOCAB_SIZE, "moe_layer_freq": [0, 1], "sparse_attention_freq": [0, 1]},
    **{"index_n_heads": 2, "index_head_dim": 16, "index_block_size": 4, "index_topk_blocks": 2},
}

# By kind: mlx-lm's name of it, what its config needs, and how its rows may run together.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], Batching]] = {
    "llama": ("llama", {}, "padded"),
    "llama, sliding": ("llama", {"sliding_window": 48, "layer_types": _SLIDING}, "padded"),
    "gpt-oss": (
        "gpt_oss",
        {
            **{"sliding_window": 48, "layer_types": _SLIDING, "num_local_experts": 2},
            **{"num_experts_per_tok": 1, "rope_theta": 10000},
        },
        "padded",
    ),
    "lfm2": (
        "lfm2",
        {
            **{"norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "block_dim": 64},
            **{"block_multiple_of": 8, "block_ffn_dim_multiplier": 1.0},
            **{"block_auto_adjust_ff_dim": False, "full_attn_idxs": [1]},
        },
        "padded",
    ),
    "gemma3n": ("gemma3n", {"text_config": _GEMMA3N}, "padded"),
    "nemotron-nas": (
        "nemotron-nas",
        {
            "block_configs": [
                _BLOCK,
                {"attention": {"replace_with_linear": True}, "ffn": {"ffn_mult": 1.5}},
                {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.5}},
                _BLOCK,
            ],
            "num_hidden_layers": 4,
        },
        "padded",
    ),
    "nemotron-h": (
        "nemotron_h",
        {
            **{"attention_bias": False, "mamba_num_heads": 4, "mamba_head_dim": 16},
            **{"mamba_proj_bias": False, "ssm_state_size": 16, "conv_kernel": 3, "n_groups": 2},
            **{"time_step_limit": [0.0, 100.0], "mlp_bias": False, "layer_norm_epsilon": 1e-4},
            **{"use_bias": False, "use_conv_bias": True, "residual_in_fp32": True},
            **{"hybrid_override_pattern": ["*", "M"]},
        },
        "unpadded",
    ),
    "jamba": (
        "jamba",
        {
            **{"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1},
            **{"expert_layer_period": 2, "mamba_d_conv": 4, "mamba_d_state": 16},
            **{"mamba_expand": 2, "num_experts": 2, "num_experts_per_tok": 1},
        },
        "unpadded",
    ),
    "mamba": (
        "mamba",
        {
            **{"use_bias": False, "use_conv_bias": True, "conv_kernel": 4, "state_size": 16},
            **{"time_step_rank": 4},
        },
        "unpadded",
    ),
    "rwkv7": (
        "rwkv7",
        {
            **{"norm_eps": 1e-5, "head_dim": 32, "a_low_rank_dim": 16, "v_low_rank_dim": 16},
            **{"gate_low_rank_dim": 16, "decay_low_rank_dim": 16},
        },
        "unpadded",
    ),
    "afm7": (
        "afm7",
        {
            **{"hidden_dim": 64, "num_layers": 4, "num_hidden_layers": 4, "num_heads": 4},
            **{"num_kv_reuse_layers": 2, "num_kv_heads": 2},
        },
        "alone",
    ),
    "gpt-bigcode": (
        "gpt_bigcode",
        {
            **{"n_embd": 64, "n_layer": 2, "n_inner": 128, "n_head": 4, "n_positions": 2048},
            **{"layer_norm_epsilon": 1e-5},
        },
        "alone",
    ),
    "minimax-m3": ("minimax_m3_vl", {"text_config": _MINIMAX_M3}, "alone"),
    "longcat, n-grams": (
        "longcat_flash_ngram",
        {
            **{"attention_method": "MLA", "zero_expert_type": "identity", "ffn_hidden_size": 64},
            **{"moe_topk": 1, "expert_ffn_hidden_size": 64, "n_routed_experts": 2},
            **{"zero_expert_num": 1, "num_layers": 2, "kv_lora_rank": 16, "q_lora_rank": 16},
            **{"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
            **{"routed_scaling_factor": 1.0, "mla_scale_q_lora": True},
            **{"mla_scale_kv_lora": True, "attention_bias": False},
        },
        "alone",
    ),
    "llama4": ("llama4", {"text_config": _LLAMA4, "num_hidden_layers": 4}, "alone"),
    "deepseek-v4.1": (
        "deepseek_v41",
        {
            **{"num_hidden_layers": 3, "head_dim": 32, "q_lora_rank": 32, "qk_rope_head_dim": 8},
            **{"o_groups": 2, "o_lora_rank": 16, "moe_intermediate_size": 32, "index_topk": 8},
            **{"n_routed_experts": 2, "num_experts_per_tok": 1, "sliding_window": 32},
            **{"compress_ratios": [1, 4, 4], "kv_source_layer_ids": [0, 1, 1]},
            **{"index_source_layer_ids": [0, 1, 1], "candidate_topk_blocks": 4},
            **{"candidate_block_size": 4, "index_n_heads": 2, "index_head_dim": 32},
        },
        "alone",
    ),
}


def make_architecture(path: Path, kind: str) -> Path:
    """Write a tiny model of a kind into `path`, and return it."""
    model_type, config, _ = ARCHITECTURES[kind]
    return make_tiny_model(path, model_type=model_type, config=config)

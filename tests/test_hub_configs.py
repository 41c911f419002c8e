"""Config files as they are found on the hub, in the forms of several years, and what must come out of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from lens.config import Experts, Rotary, RotaryScaling
from lens.family import find
from lens.mixers.big_bird import BigBird

COMMON: dict[str, Any] = {
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.44.0",
    "use_cache": True,
}

GPT2 = {
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "embd_pdrop": 0.1,
    "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
    "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 50257,
}  # fmt: skip

GPT_NEO_125M = {
    "activation_function": "gelu_new", "architectures": ["GPTNeoForCausalLM"], "attention_dropout": 0,
    "attention_layers": ["global", "local"] * 6, "attention_types": [[["global", "local"], 6]],
    "embed_dropout": 0, "gradient_checkpointing": False, "hidden_size": 768, "intermediate_size": None,
    "layer_norm_epsilon": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neo", "num_heads": 12,
    "num_layers": 12, "resid_dropout": 0, "summary_activation": None, "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True, "vocab_size": 50257,
    "window_size": 256,
}  # fmt: skip

GPT_J = {
    "activation_function": "gelu_new", "architectures": ["GPTJForCausalLM"], "attn_pdrop": 0.0, "embd_pdrop": 0.0,
    "gradient_checkpointing": False, "layer_norm_epsilon": 1e-05, "model_type": "gptj", "n_embd": 4096,
    "n_head": 16, "n_inner": None, "n_layer": 28, "n_positions": 2048, "resid_pdrop": 0.0, "rotary": True,
    "rotary_dim": 64, "scale_attn_weights": True, "summary_activation": None, "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
    "tie_word_embeddings": False, "tokenizer_class": "GPT2Tokenizer", "vocab_size": 50400,
}  # fmt: skip

PYTHIA_70M = {
    "architectures": ["GPTNeoXForCausalLM"], "hidden_act": "gelu", "hidden_size": 512, "intermediate_size": 2048,
    "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 8,
    "num_hidden_layers": 6, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False,
    "use_parallel_residual": True, "vocab_size": 50304,
}  # fmt: skip

OPT_350M = {
    "_remove_final_layer_norm": False, "activation_dropout": 0.0, "activation_function": "relu",
    "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0, "do_layer_norm_before": False, "dropout": 0.1,
    "ffn_dim": 4096, "hidden_size": 1024, "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048,
    "model_type": "opt", "num_attention_heads": 16, "num_hidden_layers": 24, "pad_token_id": 1, "prefix": "</s>",
    "vocab_size": 50272, "word_embed_proj_dim": 512,
}  # fmt: skip

SMOLLM2_135M = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu",
    "hidden_size": 576, "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192,
    "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None,
    "rope_theta": 100000, "tie_word_embeddings": True, "vocab_size": 49152,
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
}  # fmt: skip

LLAMA_32_1B = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "head_dim": 64,
    "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072,
    "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16,
    "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3",
    },
    "rope_theta": 500000.0, "tie_word_embeddings": True, "vocab_size": 128256,
}  # fmt: skip

MISTRAL_7B = {
    "architectures": ["MistralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip

QWEN2_7B = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 3584,
    "intermediate_size": 18944, "max_position_embeddings": 32768, "max_window_layers": 28, "model_type": "qwen2",
    "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": False, "use_sliding_window": False,
    "vocab_size": 152064,
}  # fmt: skip

QWEN3_06B = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072, "max_position_embeddings": 40960,
    "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000,
    "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip

GEMMA_2B = {
    "architectures": ["GemmaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "head_dim": 256,
    "hidden_act": "gelu", "hidden_size": 2048, "intermediate_size": 16384, "max_position_embeddings": 8192,
    "model_type": "gemma", "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1,
    "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000.0, "vocab_size": 256000,
}  # fmt: skip

GEMMA_2_2B = {
    "architectures": ["Gemma2ForCausalLM"], "attention_bias": False, "attn_logit_softcapping": 50.0,
    "cache_implementation": "hybrid", "final_logit_softcapping": 30.0, "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304,
    "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
    "num_hidden_layers": 26, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0, "sliding_window": 4096, "sliding_window_size": 4096, "vocab_size": 256000,
}  # fmt: skip

GEMMA_3_1B = {
    "architectures": ["Gemma3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "attn_logit_softcapping": None, "cache_implementation": "hybrid", "final_logit_softcapping": None,
    "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
    "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4,
    "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512,
    "sliding_window_pattern": 6, "vocab_size": 262144,
}  # fmt: skip

OLMO_2_1B = {
    "architectures": ["Olmo2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu",
    "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "olmo2",
    "num_attention_heads": 16, "num_hidden_layers": 16, "num_key_value_heads": 16, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 500000, "tie_word_embeddings": False, "vocab_size": 100352,
}  # fmt: skip

PHI_2 = {
    "architectures": ["PhiForCausalLM"], "attention_dropout": 0.0, "embd_pdrop": 0.0, "hidden_act": "gelu_new",
    "hidden_size": 2560, "intermediate_size": 10240, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
    "model_type": "phi", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "partial_rotary_factor": 0.4, "qk_layernorm": False, "resid_pdrop": 0.1, "rope_scaling": None,
    "rope_theta": 10000.0, "tie_word_embeddings": False, "vocab_size": 51200,
}  # fmt: skip

PHI_3_MINI_4K = {
    "_name_or_path": "Phi-3-mini-4k-instruct", "architectures": ["Phi3ForCausalLM"], "attention_bias": False,
    "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "embd_pdrop": 0.0,
    "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096,
    "model_type": "phi3", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": False,
    "vocab_size": 32064,
}  # fmt: skip

MIXTRAL_8X7B = {
    "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
    "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "num_local_experts": 8, "output_router_logits": False, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.02, "sliding_window": None, "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip

QWEN1_5_MOE = {
    "architectures": ["Qwen2MoeForCausalLM"], "attention_dropout": 0.0, "decoder_sparse_step": 1,
    "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 8192,
    "max_window_layers": 21, "model_type": "qwen2_moe", "moe_intermediate_size": 1408, "norm_topk_prob": False,
    "num_attention_heads": 16, "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24,
    "num_key_value_heads": 16, "output_router_logits": False, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 5632, "sliding_window": 32768,
    "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip

QWEN3_30B_A3B = {
    "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "decoder_sparse_step": 1, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
    "model_type": "qwen3_moe", "moe_intermediate_size": 768, "norm_topk_prob": True, "num_attention_heads": 32,
    "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
    "output_router_logits": False, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001, "sliding_window": None, "tie_word_embeddings": False,
    "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip

OLMOE_1B_7B = {
    "architectures": ["OlmoeForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "clip_qkv": None,
    "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 1024, "max_position_embeddings": 4096,
    "model_type": "olmoe", "norm_topk_prob": False, "num_attention_heads": 16, "num_experts": 64,
    "num_experts_per_tok": 8, "num_hidden_layers": 16, "num_key_value_heads": 16, "output_router_logits": False,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0, "router_aux_loss_coef": 0.01,
    "tie_word_embeddings": False, "vocab_size": 50304,
}  # fmt: skip

BIGBIRD_BASE = {
    "architectures": ["BigBirdForPreTraining"], "attention_probs_dropout_prob": 0.1,
    "attention_type": "block_sparse", "block_size": 64, "gradient_checkpointing": False, "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0.1, "hidden_size": 768, "intermediate_size": 3072, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 4096, "model_type": "big_bird", "num_attention_heads": 12,
    "num_hidden_layers": 12, "num_random_blocks": 3, "position_embedding_type": "absolute",
    "rescale_embeddings": False, "sep_token_id": 66, "type_vocab_size": 2, "use_bias": True, "vocab_size": 50358,
}  # fmt: skip

LLAMA3_SCALING = RotaryScaling(
    kind="llama3", factor=32.0, original_n_ctx=8192, low_freq_factor=1.0, high_freq_factor=4.0
)
FOUR = frozenset({"q", "k", "v", "o"})

EXPECTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gpt2": (GPT2, {"d_mlp": 3072, "attn_bias": FOUR, "rotary": None, "act_fn": "gelu_new"}),
    "gpt-neo-125m": (
        GPT_NEO_125M,
        {"attn_scale": 1.0, "attn_bias": frozenset({"o"}), "windows": (None, 256) * 6},
    ),
    "gpt-j-6b": (
        GPT_J,
        {"parallel": True, "shared_norm": True, "rotary": (Rotary(dim=64, interleaved=True),) * 28},
    ),
    "pythia-70m": (PYTHIA_70M, {"parallel": True, "shared_norm": False, "rotary": (Rotary(dim=16),) * 6}),
    "opt-350m": (OPT_350M, {"norm_placement": frozenset({"add"}), "final_norm": False, "act_fn": "relu"}),
    "smollm2-135m": (
        SMOLLM2_135M,
        {"n_kv_heads": 3, "d_head": 64, "rotary": (Rotary(dim=64, theta=1e5),) * 30},
    ),
    "llama-3.2-1b": (LLAMA_32_1B, {"rotary": (Rotary(dim=64, theta=5e5, scaling=LLAMA3_SCALING),) * 16}),
    "mistral-7b": (MISTRAL_7B, {"windows": (4096,) * 32, "d_head": 128}),
    "qwen2-7b": (QWEN2_7B, {"windows": None, "attn_bias": frozenset({"q", "k", "v"})}),
    "qwen3-0.6b": (QWEN3_06B, {"windows": None, "qk_norm": "head", "d_head": 128, "attn_bias": frozenset()}),
    "gemma-2b": (GEMMA_2B, {"act_fn": "gelu_pytorch_tanh", "norm_unit_offset": True, "n_kv_heads": 1}),
    "gemma-2-2b": (GEMMA_2_2B, {"attn_softcap": 50.0, "attn_scale": 0.0625, "windows": (4096, None) * 13}),
    "gemma-3-1b": (
        GEMMA_3_1B,
        {"attn_softcap": None, "qk_norm": "head", "windows": ((512,) * 5 + (None,)) * 4 + (512, 512)},
    ),
    "olmo-2-1b": (OLMO_2_1B, {"norm_placement": frozenset({"out"}), "qk_norm": "all"}),
    "phi-2": (PHI_2, {"rotary": (Rotary(dim=32),) * 32, "qk_norm": None, "parallel": True}),
    "phi-3-mini-4k": (PHI_3_MINI_4K, {"windows": (2047,) * 32, "rotary": (Rotary(dim=96),) * 32}),
    "qwen1.5-moe": (
        QWEN1_5_MOE,
        {"windows": None, "experts": Experts(n=60, top_k=4, normalize=False, d_mlp=1408, shared=5632)},
    ),
    "qwen3-30b-a3b": (QWEN3_30B_A3B, {"windows": None, "experts": Experts(n=128, top_k=8, d_mlp=768)}),
    "olmoe-1b-7b": (OLMOE_1B_7B, {"qk_norm": "all", "experts": Experts(n=64, top_k=8, normalize=False)}),
    "bigbird-base": (BIGBIRD_BASE, {"mixer": BigBird(block=64, n_random=3), "attn_bias": FOUR}),
    "mixtral-8x7b": (MIXTRAL_8X7B, {"windows": None, "rotary": (Rotary(dim=128, theta=1e6),) * 32}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_hub_config(name: str) -> None:
    hf, expected = EXPECTED[name]
    cfg = find(hf).config({**COMMON, **hf})
    assert {field: getattr(cfg.stack, field) for field in expected} == expected
    sizes = ("n_layer", "num_layers", "num_hidden_layers"), ("n_embd", "hidden_size"), ("vocab_size",)
    assert (cfg.n_layers, cfg.d_model, cfg.d_vocab) == tuple(
        next(hf[key] for key in keys if key in hf) for keys in sizes
    )
    assert cfg.n_ctx == hf.get("n_positions", hf.get("max_position_embeddings"))
    assert cfg.hf == {**COMMON, **hf}


def test_gemma_3_layers_turn_at_two_speeds() -> None:
    cfg = find(GEMMA_3_1B).config(GEMMA_3_1B)
    assert cfg.stack.rotary is not None
    assert [r and r.theta for r in cfg.stack.rotary[:6]] == [1e4] * 5 + [1e6]
    stretched = find(GEMMA_3_1B).config(
        {**GEMMA_3_1B, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    )
    assert stretched.stack.rotary is not None
    assert [r and r.scaling and r.scaling.factor for r in stretched.stack.rotary[:6]] == [None] * 5 + [8.0]
    slow = cfg.stack.rotary[5]
    assert slow
    assert stretched.stack.rotary[5] == replace(slow, scaling=RotaryScaling(kind="linear", factor=8.0))


def test_yarn_as_qwen_states_it() -> None:
    scaling = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
    cfg = find(QWEN2_7B).config({**QWEN2_7B, "rope_scaling": scaling})
    assert cfg.stack.rotary
    assert cfg.stack.rotary[0]
    found = cfg.stack.rotary[0].scaling
    assert found
    assert (found.kind, found.factor, found.original_n_ctx) == ("yarn", 4.0, 32768)
    assert found.attention_factor == pytest.approx(1.138629436)  # 0.1 ln 4 + 1


@pytest.mark.parametrize(
    ("hf", "fields", "message"),
    [
        (PHI_3_MINI_4K, {"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, "longrope"),
        (SMOLLM2_135M, {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        (QWEN2_7B, {"model_type": "qwen2_vl"}, "did you mean 'qwen2'"),
        (OLMOE_1B_7B, {"clip_qkv": 8.0}, "clip_qkv=8.0"),
        (GEMMA_3_1B, {"model_type": "gemma3"}, "or 'gemma3_text'?"),
        (MISTRAL_7B, {"layer_types": ["full_attention"]}, "layer_types"),
        (LLAMA_32_1B, {"no_rope_layers": [1, 1, 1, 0]}, "no_rope_layers"),
    ],
)
def test_near_relatives_are_refused(hf: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    altered = {**COMMON, **hf, **fields}
    with pytest.raises(ValueError, match=re.escape(message)):
        find(altered).config(altered)

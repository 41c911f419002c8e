"""Config files of recurrent models as they are found on the hub, and what must come out of them."""

from __future__ import annotations

from typing import Any

import pytest

from lens.description import in_words, n_parameters
from lens.family import find

MAMBA_130M: dict[str, Any] = {
    "architectures": ["MambaForCausalLM"], "bos_token_id": 0, "conv_kernel": 4, "d_inner": 1536, "d_model": 768,
    "eos_token_id": 0, "expand": 2, "fused_add_norm": True, "hidden_act": "silu", "hidden_size": 768,
    "initializer_range": 0.1, "intermediate_size": 1536, "layer_norm_epsilon": 1e-05, "model_type": "mamba",
    "n_layer": 24, "num_hidden_layers": 24, "pad_token_id": 0, "pad_vocab_size_multiple": 8,
    "rescale_prenorm_residual": False, "residual_in_fp32": True, "rms_norm": True, "ssm_cfg": {}, "state_size": 16,
    "time_step_floor": 0.0001, "time_step_init_scheme": "random", "time_step_max": 0.1, "time_step_min": 0.001,
    "time_step_rank": 48, "time_step_scale": 1.0, "torch_dtype": "float32", "transformers_version": "4.39.0.dev0",
    "use_bias": False, "use_cache": True, "use_conv_bias": True, "vocab_size": 50280,
}  # fmt: skip

MAMBA2_130M: dict[str, Any] = {
    "architectures": ["Mamba2ForCausalLM"], "bos_token_id": 0, "chunk_size": 256, "conv_kernel": 4, "eos_token_id": 0,
    "expand": 2, "head_dim": 64, "hidden_act": "silu", "hidden_size": 768, "initializer_range": 0.1,
    "layer_norm_epsilon": 1e-05, "model_type": "mamba2", "n_groups": 1, "norm_before_gate": True, "num_heads": 24,
    "num_hidden_layers": 24, "pad_token_id": 0, "rescale_prenorm_residual": False, "residual_in_fp32": True,
    "rms_norm": True, "state_size": 128, "tie_word_embeddings": True, "time_step_floor": 0.0001,
    "time_step_init_scheme": "random", "time_step_limit": [0.0, float("inf")], "time_step_max": 0.1,
    "time_step_min": 0.001, "time_step_rank": 48, "time_step_scale": 1.0, "torch_dtype": "float32",
    "transformers_version": "4.43.0.dev0", "use_bias": False, "use_cache": True, "use_conv_bias": True,
    "vocab_size": 50288,
}  # fmt: skip

RWKV_169M: dict[str, Any] = {
    "architectures": ["RwkvForCausalLM"], "attention_hidden_size": 768, "bos_token_id": 0, "context_length": 1024,
    "eos_token_id": 0, "hidden_size": 768, "intermediate_size": 3072, "layer_norm_epsilon": 1e-05,
    "model_type": "rwkv", "num_hidden_layers": 12, "rescale_every": 6, "tie_word_embeddings": False,
    "transformers_version": "4.29.0.dev0", "use_cache": True, "vocab_size": 50277,
}  # fmt: skip

EXPECTED: dict[str, tuple[dict[str, Any], int, str]] = {
    "mamba-130m": (MAMBA_130M, 129_135_360, "Mamba: 1,536 channels with a state of 16 each"),
    "mamba2-130m": (MAMBA2_130M, 128_989_632, "Mamba-2: 24 heads of 64 with a state of 128"),
    "rwkv-4-169m": (RWKV_169M, 169_342_464, "RWKV-4: means of values over 768 channels"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_hub_config(name: str) -> None:
    hf, n, words = EXPECTED[name]
    cfg = find(hf).config(hf)
    assert n_parameters(cfg) == n
    assert sum(line.startswith(words) for line in in_words(cfg)) == 1
    assert "texts of any length" in in_words(cfg)[1]


@pytest.mark.parametrize(
    ("hf", "fields", "message"),
    [
        (MAMBA_130M, {"ssm_cfg": {"layer": "Mamba2"}}, "ssm_cfg="),
        (MAMBA_130M, {"rms_norm": False}, "rms_norm=False"),
        (MAMBA_130M, {"expand": 3}, "intermediate_size=1536 and expand=3 of 768"),
        (MAMBA2_130M, {"num_heads": 12}, "12 heads of 64 and expand=2 times 768"),
        (RWKV_169M, {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon=1e-06"),
        (RWKV_169M, {"model_type": "rwkv5"}, "did you mean 'rwkv'"),
    ],
)
def test_near_relatives_are_refused(hf: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    altered = {**hf, **fields}
    if "expand" in fields:
        altered.pop("d_inner")
    with pytest.raises(ValueError, match=message):
        find(altered).config(altered)

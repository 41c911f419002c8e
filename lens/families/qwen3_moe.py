"""Qwen 3 with experts (arXiv 2505.09388): Qwen 3's block with many small experts in place of the MLP."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.families._windows import everywhere
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    f.ignore("max_window_layers")  # nothing reads it
    used = f.get("use_sliding_window", default=False)
    window = f.get("sliding_window", default=4096, null=None)
    return like.build(
        f,
        d_head=None,
        n_kv_heads=4,
        qk_norm="head",
        attn_bias=like.attention_bias(f),
        windows=everywhere(window if used else None, *like.sizes(f)),
        experts=like.experts_in(
            f,
            n=f.get("num_experts", "num_local_experts", default=128),
            d_mlp=f.get("moe_intermediate_size", default=768),
        ),
    )


def weights(cfg: ModelConfig) -> Table:
    parts = (like.ends, like.pre_norms, like.attention, like.qk_norms, like.mlp, like.experts)
    return Table("qwen3_moe", tuple(rule for part in parts for rule in part()), prefix="model.")


FAMILY = Family("qwen3_moe", ("qwen3_moe",), build, weights)

"""Qwen 1.5 and 2 with experts (arXiv 2407.10671, §2.2.2): many small ones, and one that all positions go through."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.families._windows import by_type
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, same


def build(f: Fields) -> ModelConfig:
    n_layers, n_ctx = like.sizes(f)
    experts = like.experts_in(
        f,
        n=f.get("num_experts", default=60),
        d_mlp=f.get("moe_intermediate_size", default=1408),
        shared=f.get("shared_expert_intermediate_size", default=5632),
    )
    bias = frozenset({"q", "k", "v"}) if f.get("qkv_bias", default=True) else frozenset()
    used = f.get("use_sliding_window", default=False)
    window = f.get("sliding_window", default=4096)
    first_full = f.get("max_window_layers", default=28)
    derived = [
        "sliding_attention" if used and layer % 2 == 0 and layer < first_full else "full_attention"
        for layer in range(n_layers)
    ]
    windows = by_type(f, window if used else None, f.get("layer_types", default=derived), n_ctx)
    return like.build(f, n_kv_heads=16, attn_bias=bias, windows=windows, experts=experts)


def weights(cfg: ModelConfig) -> Table:
    saved, ours = f"{like.LAYER}.mlp", f"{like.BLOCK}.mlp"
    shared = (f"{saved}.shared_expert.{{}}_proj", f"{ours}.shared.{{}}")
    rules = (
        *like.ends(),
        *like.pre_norms(),
        *like.attention(),
        *like.mlp(),
        *like.experts(),
        same(f"{saved}.shared_expert_gate", f"{ours}.shared_gate"),
        *(same(*(side.replace("{}", name) for side in shared)) for name in ("gate", "up", "down")),
    )
    return Table("qwen2_moe", rules, prefix="model.")


FAMILY = Family("qwen2_moe", ("qwen2_moe",), build, weights)

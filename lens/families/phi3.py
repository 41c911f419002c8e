"""Phi-3 (arXiv 2404.14219): Llama's shape, fused projections. Its 128k variants (longrope) are refused."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.families._windows import everywhere
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, fused, same, stacked


def build(f: Fields) -> ModelConfig:
    n_layers, n_ctx = like.sizes(f)
    f.only("attention_bias", False)
    f.only("mlp_bias", False)
    f.ignore("original_max_position_embeddings")  # read by longrope only
    given = f.get("rope_scaling", default=None) or f.get("rope_parameters", default={})
    kind = given.get("rope_type", given.get("type", "default"))
    if kind != "default":
        raise ValueError(f"phi3 config: rope type {kind!r} (longrope) is not supported; it can be 'default'")
    window = f.get("sliding_window", default=None)
    return like.build(f, eps=1e-5, partial=1.0, windows=everywhere(window, n_layers, n_ctx))


def weights(cfg: ModelConfig) -> Table:
    c, attn, mlp = cfg.stack, f"{like.BLOCK}.attn", f"{like.BLOCK}.mlp"
    queries, keys = c.n_heads * c.d_head, c.n_kv_heads * c.d_head
    rules = (
        *like.ends(),
        *like.pre_norms(),
        stacked(
            f"{like.LAYER}.self_attn.qkv_proj", {f"{attn}.q": queries, f"{attn}.k": keys, f"{attn}.v": keys}
        ),
        same(f"{like.LAYER}.self_attn.o_proj", f"{attn}.o"),
        fused(f"{like.LAYER}.mlp.gate_up_proj", f"{mlp}.gate", f"{mlp}.up", weight="(n m) d -> n m d"),
        same(f"{like.LAYER}.mlp.down_proj", f"{mlp}.down"),
    )
    return Table("phi3", rules, prefix="model.")


FAMILY = Family("phi3", ("phi3",), build, weights)

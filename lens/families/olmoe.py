"""OLMoE (arXiv 2409.02060): small experts in every layer, norms over all queries and all keys."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    f.only("clip_qkv")
    experts = like.experts_in(f, n=f.get("num_experts", "num_local_experts", default=64))
    return like.build(f, eps=1e-5, qk_norm="all", attn_bias=like.attention_bias(f), experts=experts)


def weights(cfg: ModelConfig) -> Table:
    parts = (like.ends, like.pre_norms, like.attention, like.qk_norms, like.experts)
    return Table("olmoe", tuple(rule for part in parts for rule in part()), prefix="model.")


FAMILY = Family("olmoe", ("olmoe",), build, weights)

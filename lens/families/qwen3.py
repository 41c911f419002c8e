"""Qwen 3 (arXiv 2505.09388), dense: Llama's shape with a norm on each head's queries and keys."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.families._windows import from_layer
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    windows = from_layer(f, *like.sizes(f))
    return like.build(
        f, d_head=128, n_kv_heads=32, qk_norm="head", attn_bias=like.attention_bias(f), windows=windows
    )


def weights(cfg: ModelConfig) -> Table:
    rules = (*like.ends(), *like.pre_norms(), *like.attention(), *like.qk_norms(), *like.mlp())
    return Table("qwen3", rules, prefix="model.")


FAMILY = Family("qwen3", ("qwen3",), build, weights)

"""Qwen 2 and 2.5 (arXiv 2407.10671): Llama's shape with biases on queries, keys and values."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.families._windows import from_layer
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    f.only("use_mrope", False)
    f.only("attention_bias", True)
    windows = from_layer(f, *like.sizes(f))
    return like.build(f, n_kv_heads=32, attn_bias=frozenset({"q", "k", "v"}), windows=windows)


def weights(cfg: ModelConfig) -> Table:
    rules = (*like.ends(), *like.pre_norms(), *like.attention(), *like.mlp())
    return Table("qwen2", rules, prefix="model.")


FAMILY = Family("qwen2", ("qwen2",), build, weights)

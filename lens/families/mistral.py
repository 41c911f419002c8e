"""Mistral 7B (arXiv 2310.06825): Llama's shape with a sliding window in every layer."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.families._windows import everywhere
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    n_layers, n_ctx = like.sizes(f)
    window = f.get("sliding_window", default=4096, null=None)
    f.only("attention_bias", False)
    return like.build(f, n_kv_heads=8, windows=everywhere(window, n_layers, n_ctx))


def weights(cfg: ModelConfig) -> Table:
    rules = (*like.ends(), *like.pre_norms(), *like.attention(), *like.mlp())
    return Table("mistral", rules, prefix="model.")


FAMILY = Family("mistral", ("mistral",), build, weights)

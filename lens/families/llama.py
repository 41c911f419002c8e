"""Llama 1 to 3 (arXiv 2302.13971) and models of its shape: SmolLM2, TinyLlama, Vicuna."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    f.only("rope_interleaved", False)
    return like.build(f, attn_bias=like.attention_bias(f), mlp_bias=f.get("mlp_bias", default=False))


def weights(cfg: ModelConfig) -> Table:
    rules = (*like.ends(), *like.pre_norms(), *like.attention(), *like.mlp())
    return Table("llama", rules, prefix="model.")


FAMILY = Family("llama", ("llama",), build, weights)

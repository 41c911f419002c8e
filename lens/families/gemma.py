"""Gemma (arXiv 2403.08295): embeddings times √d_model, norm weights stored as gain − 1, wide heads, tied."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    f.only("use_bidirectional_attention", False)
    return like.build(
        f,
        d_head=256,
        n_kv_heads=16,
        tied=True,
        scaled_embedding=True,
        act_fn=_activation(f),
        norm_unit_offset=True,
        attn_bias=like.attention_bias(f),
    )


def _activation(f: Fields) -> str:
    """The first checkpoints say `hidden_act: gelu` and mean its tanh approximation."""
    newer = f.get("hidden_activation", default=None)
    named = f.activation("hidden_act", default="gelu_pytorch_tanh")
    named = "gelu_pytorch_tanh" if named == "gelu" else named
    if newer not in (None, named):
        pair = f"hidden_activation={newer!r} and hidden_act={named!r}"
        raise ValueError(f"{f.family} config disagrees with itself: {pair}")
    return named


def weights(cfg: ModelConfig) -> Table:
    rules = (*like.ends(), *like.pre_norms(), *like.attention(), *like.mlp())
    return Table("gemma", rules, prefix="model.")


FAMILY = Family("gemma", ("gemma",), build, weights)

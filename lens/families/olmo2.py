"""OLMo 2 (arXiv 2501.00656): norms on each branch's output, not its input, and over all queries and keys."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    return like.build(
        f, eps=1e-5, qk_norm="all", norm_placement=frozenset({"out"}), attn_bias=like.attention_bias(f)
    )


def weights(cfg: ModelConfig) -> Table:
    norms = like.norms(ln1_post="post_attention_layernorm", ln2_post="post_feedforward_layernorm")
    rules = (*like.ends(), *norms, *like.attention(), *like.qk_norms(), *like.mlp())
    return Table("olmo2", rules, prefix="model.")


FAMILY = Family("olmo2", ("olmo2",), build, weights)

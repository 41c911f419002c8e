"""Gemma 2 (arXiv 2408.00118): norms around both branches, capped scores and logits, alternating windows."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _llama_like as like
from lens.families._windows import by_type
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    n_layers, n_ctx = like.sizes(f)
    f.only("use_bidirectional_attention", False)
    f.ignore("hidden_act")  # superseded by hidden_activation; both are in the first configs
    window = f.get("sliding_window", "sliding_window_size", default=4096)
    alternating = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(n_layers)]
    layer_types = f.get("layer_types", default=alternating)
    return like.build(
        f,
        d_head=256,
        n_kv_heads=4,
        tied=True,
        scaled_embedding=True,
        act_fn=f.activation("hidden_activation", default="gelu_pytorch_tanh"),
        logit_softcap=f.number("final_logit_softcapping", default=30.0, null=None),
        attn_softcap=f.number("attn_logit_softcapping", default=50.0, null=None),
        attn_scale=f.get("query_pre_attn_scalar", default=256) ** -0.5,
        norm_unit_offset=True,
        norm_placement=frozenset({"in", "out"}),
        windows=by_type(f, window, layer_types, n_ctx),
        attn_bias=like.attention_bias(f),
    )


def weights(cfg: ModelConfig) -> Table:
    norms = like.norms(
        ln1="input_layernorm",
        ln1_post="post_attention_layernorm",
        ln2="pre_feedforward_layernorm",
        ln2_post="post_feedforward_layernorm",
    )
    rules = (*like.ends(), *norms, *like.attention(), *like.mlp())
    return Table("gemma2", rules, prefix="model.")


FAMILY = Family("gemma2", ("gemma2",), build, weights)

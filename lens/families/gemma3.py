"""Gemma 3 (arXiv 2503.19786), text only: norms around both branches and on queries and keys.

Five local layers with fast rotary positions come to one global layer with slow ones.
"""

from __future__ import annotations

from typing import Any

from lens.config import ModelConfig, Rotary
from lens.families import _llama_like as like
from lens.families._rope import spec
from lens.families._windows import by_type
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    n_layers, n_ctx = like.sizes(f)
    f.only("use_bidirectional_attention", False)
    period = f.get("sliding_window_pattern", "_sliding_window_pattern", default=6)
    periodic = [
        "sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(n_layers)
    ]
    layer_types = f.get("layer_types", default=periodic)
    d_head = f.get("head_dim", default=256)
    return like.build(
        f,
        d_head=d_head,
        n_kv_heads=4,
        tied=True,
        scaled_embedding=True,
        act_fn=f.activation("hidden_activation", default="gelu_pytorch_tanh"),
        rotary_by_layer=_rotary(f, layer_types, d_head, n_ctx),
        logit_softcap=f.number("final_logit_softcapping", default=None),
        attn_softcap=f.number("attn_logit_softcapping", default=None),
        attn_scale=f.get("query_pre_attn_scalar", default=256) ** -0.5,
        qk_norm="head",
        norm_unit_offset=True,
        norm_placement=frozenset({"in", "out"}),
        windows=by_type(f, f.get("sliding_window", default=4096), layer_types, n_ctx),
        attn_bias=like.attention_bias(f),
    )


def _rotary(f: Fields, layer_types: list[str], d_head: int, n_ctx: int) -> tuple[Rotary, ...]:
    """Rotary positions by layer type; in older configs `rope_scaling` is the global layers'."""
    given = dict(f.get("rope_parameters", default={}))
    older = {
        "full_attention": {
            "rope_theta": f.get("rope_theta", default=1_000_000.0),
            **(f.get("rope_scaling", default=None) or {}),
        },
        "sliding_attention": {"rope_theta": f.get("rope_local_base_freq", default=10_000.0)},
    }
    found: dict[str, Rotary] = {}
    for kind, defaults in older.items():
        parameters: dict[str, Any] = {**defaults, **(given.pop(kind, None) or {})}
        theta = float(parameters.pop("rope_theta"))
        found[kind] = spec(f, parameters, d_head=d_head, n_ctx=n_ctx, theta=theta)
    if given:
        raise ValueError(f"gemma3 config field rope_parameters has no layer type {next(iter(given))!r}")
    return tuple(found[kind] for kind in layer_types)


def weights(cfg: ModelConfig) -> Table:
    norms = like.norms(
        ln1="input_layernorm",
        ln1_post="post_attention_layernorm",
        ln2="pre_feedforward_layernorm",
        ln2_post="post_feedforward_layernorm",
    )
    rules = (*like.ends(), *norms, *like.attention(), *like.qk_norms(), *like.mlp())
    return Table("gemma3", rules, prefix="model.")


FAMILY = Family("gemma3", ("gemma3_text",), build, weights)

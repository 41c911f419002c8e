"""Mamba-2 (arXiv 2405.21060): state spaces with heads in attention's place, no MLP, no positions."""

from __future__ import annotations

import math
from typing import Any

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.family import Family
from lens.fields import Fields
from lens.mixers.mamba2 import Mamba2
from lens.weights import Table, alias, fused, same

TRAINED_ON = 2048
"""Positions that the published models were trained on; texts may be longer."""


def build(f: Fields) -> ModelConfig:
    f.ignore("residual_in_fp32", "rescale_prenorm_residual", "chunk_size", "norm_before_gate", "layer_types")
    f.ignore("time_step_rank", "time_step_min", "time_step_max", "time_step_floor")
    f.ignore("time_step_init_scheme", "time_step_scale")
    f.only("rms_norm", True)
    d_model, d_vocab, eps = (
        f.get("hidden_size"),
        f.get("vocab_size"),
        f.number("layer_norm_epsilon", default=1e-5),
    )
    n_heads, d_head, expand = f.get("num_heads"), f.get("head_dim", default=64), f.get("expand", default=2)
    if n_heads * d_head != expand * d_model:
        raise ValueError(
            f"{f.family} config has {n_heads} heads of {d_head} and expand={expand} times {d_model} channels"
        )
    low, high = map(_number, f.get("time_step_limit", default=(0.0, math.inf)))
    mixer = Mamba2(
        d_state=f.get("state_size", default=128),
        n_groups=f.get("n_groups", default=8),
        conv_width=f.get("conv_kernel", default=4),
        act_fn=f.activation("hidden_act", default="silu"),
        bias=f.get("use_bias", default=False),
        conv_bias=f.get("use_conv_bias", default=True),
        dt_min=low,
        dt_max=None if math.isinf(high) else high,
        norm_eps=eps,
    )
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=TRAINED_ON,
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=d_model),
        stack=StackConfig(
            n_layers=f.get("num_hidden_layers"),
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_head,
            n_kv_heads=n_heads,
            d_mlp=None,
            norm="rms",
            norm_eps=eps,
            mixer=mixer,
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model),
        tied=bool(f.get("tie_word_embeddings", default=False)),
    )


def _number(value: Any) -> float:
    """A number of a config file, which has `{"__float__": "Infinity"}` for infinity."""
    return float(value["__float__"] if isinstance(value, dict) else value)


def weights(cfg: ModelConfig) -> Table:
    theirs, ours = "backbone.layers.{l}.mixer", "stack.blocks.{l}.mixer"
    rules = (
        same("backbone.embeddings", "embed.tokens"),
        alias(same("backbone.embedding", "embed.tokens")),
        same("backbone.layers.{l}.norm", "stack.blocks.{l}.ln1"),
        *(same(f"{theirs}.{name}", f"{ours}.{name}") for name in ("in_proj", "norm", "out_proj")),
        fused(f"{theirs}.conv1d.weight", f"{ours}.conv.weight", weight="c 1 j -> c j"),
        same(f"{theirs}.conv1d.bias", f"{ours}.conv.bias"),
        *(same(f"{theirs}.{name}", f"{ours}.{name}.weight") for name in ("dt_bias", "A_log", "D")),
        same("backbone.norm_f", "stack.ln_final"),
        same("lm_head", "unembed.linear"),
    )
    return Table("mamba2", rules, prefix="backbone.")


FAMILY = Family("mamba2", ("mamba2",), build, weights)

"""Mamba (arXiv 2312.00752): a selective state space in attention's place, no MLP, no positions."""

from __future__ import annotations

import math

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.family import Family
from lens.fields import Fields
from lens.mixers.mamba import Mamba
from lens.weights import Table, alias, fused, same

TRAINED_ON = 2048
"""Positions that the published models were trained on; texts may be longer."""


def build(f: Fields) -> ModelConfig:
    f.ignore("residual_in_fp32", "use_mambapy", "use_associative_scan", "rescale_prenorm_residual")
    f.ignore("time_step_scale", "time_step_min", "time_step_max", "time_step_init_scheme", "time_step_floor")
    f.ignore("layer_types", "fused_add_norm", "pad_vocab_size_multiple")
    f.only("rms_norm", True)
    f.only("ssm_cfg", {})
    d_model, d_vocab, expand = (
        f.get("hidden_size", "d_model"),
        f.get("vocab_size"),
        f.get("expand", default=2),
    )
    d_inner = int(expand * d_model)
    stated = f.get("intermediate_size", "d_inner", default=d_inner)
    if stated != d_inner:
        raise ValueError(f"{f.family} config has intermediate_size={stated} and expand={expand} of {d_model}")
    rank = f.get("time_step_rank", default="auto")
    mixer = Mamba(
        d_inner=d_inner,
        d_state=f.get("state_size", default=16),
        dt_rank=math.ceil(d_model / 16) if rank == "auto" else int(rank),
        conv_width=f.get("conv_kernel", default=4),
        act_fn=f.activation("hidden_act", default="silu"),
        bias=f.get("use_bias", default=False),
        conv_bias=f.get("use_conv_bias", default=True),
    )
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=TRAINED_ON,
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=d_model),
        stack=StackConfig(
            n_layers=f.get("num_hidden_layers", "n_layer"),
            d_model=d_model,
            n_heads=0,
            d_head=0,
            n_kv_heads=0,
            d_mlp=None,
            norm="rms",
            norm_eps=f.number("layer_norm_epsilon", default=1e-5),
            mixer=mixer,
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model),
        tied=bool(f.get("tie_word_embeddings", default=True)),
    )


def weights(cfg: ModelConfig) -> Table:
    theirs, ours = "backbone.layers.{l}.mixer", "stack.blocks.{l}.mixer"
    rules = (
        same("backbone.embeddings", "embed.tokens"),
        alias(same("backbone.embedding", "embed.tokens")),
        same("backbone.layers.{l}.norm", "stack.blocks.{l}.ln1"),
        *(
            same(f"{theirs}.{name}", f"{ours}.{name}")
            for name in ("in_proj", "x_proj", "dt_proj", "out_proj")
        ),
        fused(f"{theirs}.conv1d.weight", f"{ours}.conv.weight", weight="c 1 j -> c j"),
        same(f"{theirs}.conv1d.bias", f"{ours}.conv.bias"),
        *(same(f"{theirs}.{name}", f"{ours}.{name}.weight") for name in ("A_log", "D")),
        same("backbone.norm_f", "stack.ln_final"),
        same("lm_head", "unembed.linear"),
    )
    return Table("mamba", rules, prefix="backbone.")


FAMILY = Family("mamba", ("mamba",), build, weights)

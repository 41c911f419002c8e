"""Jamba (arXiv 2403.19887): Mamba in most layers, attention without positions in the others, experts in some."""

from __future__ import annotations

import math

from lens.config import EmbedConfig, Experts, ModelConfig, StackConfig, UnembedConfig
from lens.families import _llama_like as like
from lens.family import Family
from lens.fields import Fields
from lens.mixers.mamba import Mamba
from lens.weights import Table, alias, fused, same


def build(f: Fields) -> ModelConfig:
    f.ignore("use_mamba_kernels", "use_mambapy", "use_associative_scan", "layer_types", "layers_block_type")
    f.ignore("output_router_logits", "router_aux_loss_coef", "num_logits_to_keep")
    f.ignore("num_local_experts", "layers_num_experts", "sliding_window")
    d_model, n_layers, n_heads = (
        f.get("hidden_size"),
        f.get("num_hidden_layers"),
        f.get("num_attention_heads"),
    )
    eps, rank = f.number("rms_norm_eps", default=1e-6), f.get("mamba_dt_rank", default="auto")
    mamba = Mamba(
        d_inner=f.get("mamba_expand", default=2) * d_model,
        d_state=f.get("mamba_d_state", default=16),
        dt_rank=math.ceil(d_model / 16) if rank == "auto" else rank,
        conv_width=f.get("mamba_d_conv", default=4),
        act_fn=f.activation("hidden_act", default="silu"),
        bias=f.get("mamba_proj_bias", default=False),
        conv_bias=f.get("mamba_conv_bias", default=True),
        norm_eps=eps,
    )
    attends = _every(f, "attn_layer", 8, 4, n_layers)
    n_experts, sparse = f.get("num_experts", default=16), _every(f, "expert_layer", 2, 1, n_layers)
    experts = Experts(
        n=n_experts, top_k=f.get("num_experts_per_tok", default=2), normalize=False, layers=sparse
    )
    d_vocab = f.get("vocab_size")
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=f.get("max_position_embeddings", default=262_144),
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=d_model),
        stack=StackConfig(
            n_layers=n_layers,
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_model // n_heads,
            n_kv_heads=f.get("num_key_value_heads", default=8, null=n_heads),
            d_mlp=f.get("intermediate_size"),
            norm="rms",
            norm_eps=eps,
            act_fn=mamba.act_fn,
            gated=True,
            mlp_bias=False,
            mixer=tuple(None if layer in attends else mamba for layer in range(n_layers)),
            experts=experts if n_experts > 1 and sparse else None,
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model),
        tied=bool(f.get("tie_word_embeddings", default=False)),
    )


def _every(f: Fields, what: str, period: int, offset: int, n_layers: int) -> tuple[int, ...]:
    """The layers that have `what`: one in each period."""
    period, offset = f.get(f"{what}_period", default=period), f.get(f"{what}_offset", default=offset)
    return tuple(layer for layer in range(n_layers) if layer % period == offset)


def weights(cfg: ModelConfig) -> Table:
    theirs, ours, mlp = f"{like.LAYER}.mamba", f"{like.BLOCK}.mixer", f"{like.BLOCK}.mlp"
    saved, expert = f"{like.LAYER}.feed_forward", f"{mlp}.experts.{{e}}"
    pair = (f"{expert}.gate.weight", f"{expert}.up.weight")
    rules = (
        same("model.embed_tokens", "embed.tokens"),
        same("model.final_layernorm", "stack.ln_final"),
        same("lm_head", "unembed.linear"),
        *like.norms(ln1="input_layernorm", ln2="pre_ff_layernorm"),
        *like.attention(),
        *(
            same(f"{theirs}.{name}", f"{ours}.{name}")
            for name in ("in_proj", "x_proj", "dt_proj", "out_proj")
        ),
        *(same(f"{theirs}.{name}_layernorm", f"{ours}.{name}_norm") for name in ("dt", "b", "c")),
        fused(f"{theirs}.conv1d.weight", f"{ours}.conv.weight", weight="c 1 j -> c j"),
        same(f"{theirs}.conv1d.bias", f"{ours}.conv.bias"),
        *(same(f"{theirs}.{name}", f"{ours}.{name}.weight") for name in ("A_log", "D")),
        *(same(f"{saved}.{name}_proj", f"{mlp}.{name}") for name in ("gate", "up", "down")),
        same(f"{saved}.router", f"{mlp}.router"),
        *(same(f"{saved}.experts.{{e}}.{name}_proj", f"{expert}.{name}") for name in ("gate", "up", "down")),
        # the same in memory: all experts in one tensor
        alias(fused(f"{saved}.experts.gate_up_proj", *pair, weight="e (n m) d -> n e m d")),
        alias(fused(f"{saved}.experts.down_proj", f"{expert}.down.weight", weight="e d m -> e d m")),
    )
    return Table("jamba", rules, prefix="model.")


FAMILY = Family("jamba", ("jamba",), build, weights)

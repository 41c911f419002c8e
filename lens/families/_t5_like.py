"""The shape of T5: RMSNorm in front of every branch, no biases, unscaled scores, positions as biases of buckets."""

from __future__ import annotations

from typing import Any

from lens.config import Buckets, EmbedConfig, Experts, ModelConfig, SourceConfig, StackConfig, UnembedConfig
from lens.fields import Fields
from lens.mlp import ACTIVATIONS
from lens.nearest import unknown
from lens.weights import Rule, Table, alias, same, skipped

SIDES = {"encoder": "encoder.", "decoder": ""}


def build(
    f: Fields,
    *,
    scaled: bool,
    tied: bool,
    feed_forward: str = "relu",
    source_experts: Experts | None = None,
    target_experts: Experts | None = None,
) -> ModelConfig:
    """An encoder–decoder of this shape; `scaled`: the last stream is divided by √d_model before the unembedding."""
    f.only("is_decoder", False)
    f.only("is_encoder_decoder", True)
    f.ignore("dropout_rate", "initializer_factor", "dense_act_fn", "is_gated_act", "scale_decoder_outputs")
    f.ignore("hidden_size", "num_attention_heads", "num_hidden_layers", "head_dim", "output_past")
    d_model, d_vocab = f.get("d_model"), f.get("vocab_size")
    n_layers = f.get("num_layers")
    embed = EmbedConfig(d_vocab=d_vocab, d_embed=d_model)
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=f.get("n_positions", default=512),
        embed=embed,
        stack=_stack(
            f,
            f.get("num_decoder_layers", default=n_layers),
            causal=True,
            cross=True,
            experts=target_experts,
            feed_forward=feed_forward,
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model, scale=d_model**-0.5 if scaled else 1.0),
        source=SourceConfig(
            embed=embed,
            stack=_stack(f, n_layers, causal=False, experts=source_experts, feed_forward=feed_forward),
            shared=True,
        ),
        start_token=f.get("decoder_start_token_id", default=f.get("pad_token_id", default=0)),
        tied=tied,
    )


def _stack(f: Fields, n_layers: int, feed_forward: str, **options: Any) -> StackConfig:
    gated, act_fn = _activation(f, feed_forward)
    n_heads = f.get("num_heads")
    return StackConfig(
        n_layers=n_layers,
        d_model=f.get("d_model"),
        n_heads=n_heads,
        d_head=f.get("d_kv"),
        n_kv_heads=n_heads,
        d_mlp=f.get("d_ff"),
        norm="rms",
        norm_eps=f.number("layer_norm_epsilon", default=1e-6),
        attn_scale=1.0,
        relative=Buckets(
            n=f.get("relative_attention_num_buckets", default=32),
            max_distance=f.get("relative_attention_max_distance", default=128),
        ),
        act_fn=act_fn,
        gated=gated,
        mlp_bias=False,
        **options,
    )


def _activation(f: Fields, default: str) -> tuple[bool, str]:
    """Whether the MLP is gated, and its activation: `relu`, `gated-gelu` (which is the tanh one), `gated-silu`."""
    words = f.get("feed_forward_proj", default=default).split("-")
    act_fn = "gelu_new" if words == ["gated", "gelu"] else words[-1]
    if act_fn not in ACTIVATIONS or len(words) > 2 or (len(words) == 2 and words[0] != "gated"):
        reason = unknown("activation function", "-".join(words), ACTIVATIONS)
        raise ValueError(f"{f.family} config field feed_forward_proj: {reason}")
    return len(words) == 2, act_fn


def weights(cfg: ModelConfig, mlp: str = "DenseReluDense", *more: Rule) -> Table:
    """The table of a family; `mlp` is its name of a dense MLP, `more` rules are its own."""
    rules = (
        same("shared", "embed.tokens"),
        alias(same("decoder.embed_tokens", "embed.tokens")),
        same("encoder.embed_tokens", "encoder.embed.tokens"),
        same("lm_head", "unembed.linear"),
        *(rule for side in SIDES for rule in _layers(cfg, side, mlp)),
        *skipped("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),  # never used
        *more,
    )
    return Table(cfg.family, rules)


def _layers(cfg: ModelConfig, side: str, mlp: str) -> tuple[Rule, ...]:
    theirs, ours = f"{side}.block.{{l}}.layer", f"{SIDES[side]}stack.blocks.{{l}}"
    last = 2 if side == "decoder" else 1
    gated = {"wi_0": "gate", "wi_1": "up", "wo": "down"}
    dense = gated if cfg.stack.gated else {"wi": "up", "wo": "down"}
    table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
    across = (
        *(same(f"{theirs}.1.EncDecAttention.{name}", f"{ours}.cross_attn.{name}") for name in "qkvo"),
        same(f"{theirs}.1.layer_norm", f"{ours}.ln3"),
    )
    return (
        same(table, f"{SIDES[side]}stack.relative.table"),
        same(f"{side}.final_layer_norm", f"{SIDES[side]}stack.ln_final"),
        *(same(f"{theirs}.0.SelfAttention.{name}", f"{ours}.attn.{name}") for name in "qkvo"),
        same(f"{theirs}.0.layer_norm", f"{ours}.ln1"),
        *(across if side == "decoder" else ()),
        *(same(f"{theirs}.{last}.{mlp}.{a}", f"{ours}.mlp.{b}") for a, b in dense.items()),
        same(f"{theirs}.{last}.layer_norm", f"{ours}.ln2"),
    )

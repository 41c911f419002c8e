"""The shape of the original transformer as fairseq and Marian write it: two stacks, norms after each sum."""

from __future__ import annotations

from typing import Any

from lens.config import EmbedConfig, ModelConfig, SourceConfig, StackConfig, UnembedConfig
from lens.fields import Fields
from lens.weights import Rule, Table, alias, fused, same

SIDES = {"encoder": "encoder.", "decoder": ""}
"""Our names of the two stacks' parts: `encoder.embed`, `encoder.stack`, and `embed`, `stack`."""


def build(f: Fields, *, shared: bool = True, d_vocab: int | None = None, **embed: Any) -> ModelConfig:
    """An encoder–decoder of this shape; `embed` is what both embeddings have, `d_vocab` the target's."""
    f.only("is_decoder", False)
    f.only("is_encoder_decoder", True)
    f.ignore("num_hidden_layers", "encoder_layerdrop", "decoder_layerdrop", "classif_dropout")
    d_model, n_source = f.get("d_model"), f.get("vocab_size")
    n_target = d_vocab or n_source
    f.only("hidden_size", d_model)
    scale = d_model**0.5 if f.get("scale_embedding", default=False) else 1.0
    n_ctx = f.get("max_position_embeddings", default=1024)
    options = {"d_embed": d_model, "n_positions": n_ctx, "scale": scale, **embed}
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=EmbedConfig(d_vocab=n_target, **options),
        stack=stack(f, "decoder", causal=True, cross=True),
        unembed=UnembedConfig(
            d_vocab=n_target, d_embed=d_model, bias=f.has("final_logits_bias", unknown=True)
        ),
        source=SourceConfig(
            embed=EmbedConfig(d_vocab=n_source, **options),
            stack=stack(f, "encoder", causal=False),
            shared=shared,
        ),
        start_token=f.get("decoder_start_token_id", default=None),
        tied=bool(f.get("tie_word_embeddings", default=True)),
    )


def stack(f: Fields, side: str, **options: Any) -> StackConfig:
    """One of the two stacks; `options` are what differs from BART's."""
    d_model, n_heads = f.get("d_model"), f.get(f"{side}_attention_heads")
    shape = {"norm_placement": frozenset({"add"}), "final_norm": False}
    shape["attn_bias"] = frozenset({"q", "k", "v", "o"})
    return StackConfig(
        n_layers=f.get(f"{side}_layers"),
        d_model=d_model,
        n_heads=n_heads,
        d_head=d_model // n_heads,
        n_kv_heads=n_heads,
        d_mlp=f.get(f"{side}_ffn_dim"),
        act_fn=f.activation("activation_function", default="gelu"),
        **{**shape, **options},
    )


def weights(cfg: ModelConfig, *more: Rule, head: str = "lm_head") -> Table:
    """The table of a family; `more` rules are its own, `head` is the name of its unembedding."""
    assert cfg.source is not None
    target = same("model.shared", "embed.tokens"), alias(same("model.decoder.embed_tokens", "embed.tokens"))
    if not cfg.source.shared:
        target = (same("model.decoder.embed_tokens", "embed.tokens"),)
    rules = (
        *target,
        same("model.encoder.embed_tokens", "encoder.embed.tokens"),
        same(f"{head}.weight", "unembed.linear.weight"),
        fused("final_logits_bias", "unembed.linear.bias", weight="1 v -> v"),
        *(rule for side in SIDES for rule in _layers(side)),
        *more,
    )
    return Table(cfg.family, rules, prefix="model.")


def _layers(side: str) -> tuple[Rule, ...]:
    theirs, ours = f"model.{side}.layers.{{l}}", f"{SIDES[side]}stack.blocks.{{l}}"
    attention = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "o"}
    across = (
        *(same(f"{theirs}.encoder_attn.{a}", f"{ours}.cross_attn.{b}") for a, b in attention.items()),
        same(f"{theirs}.encoder_attn_layer_norm", f"{ours}.ln3"),
    )
    return (
        *(same(f"{theirs}.self_attn.{a}", f"{ours}.attn.{b}") for a, b in attention.items()),
        same(f"{theirs}.self_attn_layer_norm", f"{ours}.ln1"),
        *(across if side == "decoder" else ()),
        same(f"{theirs}.fc1", f"{ours}.mlp.up"),
        same(f"{theirs}.fc2", f"{ours}.mlp.down"),
        same(f"{theirs}.final_layer_norm", f"{ours}.ln2"),
    )

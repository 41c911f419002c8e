"""Encoders and encoder–decoders that TransformerLens's configuration describes, as `ModelConfig`s."""

from __future__ import annotations

from typing import Any

from lens.compat.config import HookedTransformerConfig
from lens.config import (
    Buckets,
    ClassifierConfig,
    EmbedConfig,
    ModelConfig,
    PoolerConfig,
    SourceConfig,
    StackConfig,
    UnembedConfig,
)


def encoder_config(c: HookedTransformerConfig) -> ModelConfig:
    """BERT's shape (arXiv 1810.04805), with the heads for masked words and next sentences.

    Raises:
        ValueError: the configuration describes something else.
    """
    _check(c, "HookedEncoder", "standard", norm="LN")
    stack = _stack(c, causal=False, norm="layer", norm_placement=frozenset({"add"}), final_norm=False)
    embed = EmbedConfig(d_vocab=c.d_vocab, d_embed=c.d_model, n_positions=c.n_ctx, n_types=2, norm_eps=c.eps)
    unembed = UnembedConfig(
        d_vocab=c.d_vocab_out, d_embed=c.d_model, bias=True, transform="gelu", norm_eps=c.eps
    )
    return ModelConfig(
        family="bert", name=c.model_name, n_ctx=c.n_ctx, embed=embed, stack=stack, unembed=unembed,
        pooler=PoolerConfig(), classifier=ClassifierConfig(n_classes=2, task="follows"),
    )  # fmt: skip


def encoder_decoder_config(c: HookedTransformerConfig) -> ModelConfig:
    """T5's shape (arXiv 1910.10683): as many layers on both sides, RMSNorm whatever `normalization_type` says.

    Raises:
        ValueError: the configuration describes something else.
    """
    kind = "relative_positional_bias"
    _check(c, "HookedEncoderDecoder", kind, norm=None)
    buckets = Buckets(
        n=c.relative_attention_num_buckets or 32, max_distance=c.relative_attention_max_distance or 128
    )
    shape: dict[str, Any] = {"norm": "rms", "relative": buckets, "gated": c.gated_mlp}
    embed = EmbedConfig(d_vocab=c.d_vocab, d_embed=c.d_model)
    scale = c.d_model**-0.5 if c.tie_word_embeddings else 1.0
    return ModelConfig(
        family="t5", name=c.model_name, n_ctx=c.n_ctx, embed=embed, stack=_stack(c, causal=True, cross=True, **shape),
        unembed=UnembedConfig(d_vocab=c.d_vocab_out, d_embed=c.d_model, bias=True, scale=scale),
        source=SourceConfig(embed=embed, stack=_stack(c, causal=False, **shape)),
        start_token=c.decoder_start_token_id,
    )  # fmt: skip


def _stack(c: HookedTransformerConfig, **options: Any) -> StackConfig:
    assert c.d_mlp is not None and c.act_fn is not None
    return StackConfig(
        n_layers=c.n_layers, d_model=c.d_model, n_heads=c.n_heads, n_kv_heads=c.n_heads, d_head=c.d_head,
        d_mlp=c.d_mlp, norm_eps=c.eps, attn_bias=frozenset(("q", "k", "v", "o")), mlp_bias=True, act_fn=c.act_fn,
        attn_scale=1 / c.attn_scale if c.use_attn_scale else 1.0, **options,
    )  # fmt: skip


def _check(c: HookedTransformerConfig, what: str, positions: str, norm: str | None) -> None:
    """Raise for settings that such a model does not have."""
    if c.d_vocab < 1:
        raise ValueError("d_vocab must be given where there is no tokenizer")
    wanted = {
        "positional_embedding_type": positions,
        "normalization_type": norm or c.normalization_type,
        "attn_only": False,
        "n_devices": 1,
        "num_experts": None,
        "parallel_attn_mlp": False,
        "use_local_attn": False,
        "load_in_4bit": False,
        "n_key_value_heads": c.n_heads if c.n_key_value_heads == c.n_heads else None,
    }
    for name, value in wanted.items():
        if getattr(c, name) != value:
            raise ValueError(f"{name} of a {what} is {value!r}, not {getattr(c, name)!r}")

"""GPT-Neo (Black et al. 2021): GPT-2's shape, unscaled attention, a window in every other layer."""

from __future__ import annotations

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.families._windows import by_type
from lens.family import Family
from lens.fields import Fields
from lens.nearest import unknown
from lens.weights import Table, same, skipped

LAYER, BLOCK = "transformer.h.{l}", "stack.blocks.{l}"
KINDS = {"global": "full_attention", "local": "sliding_attention"}


def build(f: Fields) -> ModelConfig:
    n_layers, n_ctx = f.get("num_layers", "num_hidden_layers"), f.get("max_position_embeddings", default=2048)
    d_model, n_heads = f.get("hidden_size"), f.get("num_heads", "num_attention_heads")
    d_vocab = f.get("vocab_size")
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=d_model, n_positions=n_ctx),
        stack=StackConfig(
            n_layers=n_layers,
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_model // n_heads,
            n_kv_heads=n_heads,
            d_mlp=f.get("intermediate_size", default=4 * d_model),
            norm_eps=f.number("layer_norm_epsilon", default=1e-5),
            attn_bias=frozenset({"o"}),
            attn_scale=1.0,
            windows=by_type(f, f.get("window_size", default=256), _layer_types(f, n_layers), n_ctx),
            act_fn=f.activation("activation_function", default="gelu_new"),
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model),
        tied=bool(f.get("tie_word_embeddings", default=True)),
    )


def _layer_types(f: Fields, n_layers: int) -> list[str]:
    """`attention_types` is [[kinds, repeats], …]; `attention_layers` is the same written out."""
    groups = f.get("attention_types", default=[[["global", "local"], 12]])
    kinds = [kind for pattern, repeats in groups for _ in range(repeats) for kind in pattern]
    for kind in kinds:
        if kind not in KINDS:
            reason = unknown("kind of attention", kind, KINDS)
            raise ValueError(f"{f.family} config field attention_types: {reason}")
    f.only("attention_layers", kinds, tuple(kinds))
    if len(kinds) != n_layers:
        raise ValueError(
            f"{f.family} config: attention_types has {len(kinds)} layers, num_layers is {n_layers}"
        )
    return [KINDS[kind] for kind in kinds]


def weights(cfg: ModelConfig) -> Table:
    attention = f"{LAYER}.attn.attention"
    rules = (
        same("transformer.wte", "embed.tokens"),
        same("transformer.wpe", "embed.positions"),
        same("transformer.ln_f", "stack.ln_final"),
        same("lm_head", "unembed.linear"),
        same(f"{LAYER}.ln_1", f"{BLOCK}.ln1"),
        same(f"{LAYER}.ln_2", f"{BLOCK}.ln2"),
        *(same(f"{attention}.{name}_proj", f"{BLOCK}.attn.{name}") for name in "qkv"),
        same(f"{attention}.out_proj", f"{BLOCK}.attn.o"),
        same(f"{LAYER}.mlp.c_fc", f"{BLOCK}.mlp.up"),
        same(f"{LAYER}.mlp.c_proj", f"{BLOCK}.mlp.down"),
        *skipped(f"{attention}.bias", f"{attention}.masked_bias"),
    )
    return Table("gpt_neo", rules, prefix="transformer.")


FAMILY = Family("gpt_neo", ("gpt_neo",), build, weights)

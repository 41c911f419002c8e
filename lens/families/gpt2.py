"""GPT-2 (Radford et al. 2019) and models of its shape: DistilGPT2, DialoGPT."""

from __future__ import annotations

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, fused, same, skipped, transposed

LAYER, BLOCK = "transformer.h.{l}", "stack.blocks.{l}"


def build(f: Fields) -> ModelConfig:
    n_ctx = f.get("n_positions", "max_position_embeddings", default=1024)
    f.only("n_ctx", n_ctx)
    f.only("scale_attn_by_inverse_layer_idx", False)
    f.ignore("reorder_and_upcast_attn")  # the same numbers in float32
    d_model, n_heads = f.get("n_embd", "hidden_size"), f.get("n_head", "num_attention_heads")
    d_vocab = f.get("vocab_size")
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=d_model, n_positions=n_ctx),
        stack=StackConfig(
            n_layers=f.get("n_layer", "num_hidden_layers"),
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_model // n_heads,
            n_kv_heads=n_heads,
            d_mlp=f.get("n_inner", default=4 * d_model),
            norm_eps=f.number("layer_norm_epsilon", default=1e-5),
            attn_bias=frozenset({"q", "k", "v", "o"}),
            attn_scale=None if f.get("scale_attn_weights", default=True) else 1.0,
            act_fn=f.activation("activation_function", default="gelu_new"),
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model),
        tied=bool(f.get("tie_word_embeddings", default=True)),
    )


def weights(cfg: ModelConfig) -> Table:
    rules = (
        same("transformer.wte", "embed.tokens"),
        same("transformer.wpe", "embed.positions"),
        same("transformer.ln_f", "stack.ln_final"),
        same("lm_head", "unembed.linear"),
        same(f"{LAYER}.ln_1", f"{BLOCK}.ln1"),
        same(f"{LAYER}.ln_2", f"{BLOCK}.ln2"),
        fused(
            f"{LAYER}.attn.c_attn",
            *(f"{BLOCK}.attn.{name}" for name in "qkv"),
            weight="d (n o) -> n o d",
            bias="(n o) -> n o",
        ),
        transposed(f"{LAYER}.attn.c_proj", f"{BLOCK}.attn.o"),
        transposed(f"{LAYER}.mlp.c_fc", f"{BLOCK}.mlp.up"),
        transposed(f"{LAYER}.mlp.c_proj", f"{BLOCK}.mlp.down"),
        *skipped(f"{LAYER}.attn.bias", f"{LAYER}.attn.masked_bias"),
    )
    return Table("gpt2", rules, prefix="transformer.")


FAMILY = Family("gpt2", ("gpt2",), build, weights)

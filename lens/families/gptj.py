"""GPT-J (Wang & Komatsuzaki 2021): parallel branches behind one norm, interleaved rotary positions."""

from __future__ import annotations

from lens.config import EmbedConfig, ModelConfig, Rotary, StackConfig, UnembedConfig
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, same, skipped

LAYER, BLOCK = "transformer.h.{l}", "stack.blocks.{l}"


def build(f: Fields) -> ModelConfig:
    n_ctx = f.get("n_positions", "max_position_embeddings", default=2048)
    f.only("n_ctx", n_ctx)
    f.only("rotary", True)
    f.only("scale_attn_weights", True)
    n_layers = f.get("n_layer", "num_hidden_layers")
    d_model, n_heads = f.get("n_embd", "hidden_size"), f.get("n_head", "num_attention_heads")
    d_vocab = f.get("vocab_size")
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=d_model),
        stack=StackConfig(
            n_layers=n_layers,
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_model // n_heads,
            n_kv_heads=n_heads,
            d_mlp=f.get("n_inner", default=4 * d_model),
            norm_eps=f.number("layer_norm_epsilon", default=1e-5),
            parallel=True,
            shared_norm=True,
            rotary=(Rotary(dim=f.get("rotary_dim"), interleaved=True),) * n_layers,
            act_fn=f.activation("activation_function", default="gelu_new"),
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model, bias=True),
        tied=bool(f.get("tie_word_embeddings", default=False)),
    )


def weights(cfg: ModelConfig) -> Table:
    rules = (
        same("transformer.wte", "embed.tokens"),
        same("transformer.ln_f", "stack.ln_final"),
        same("lm_head", "unembed.linear"),
        same(f"{LAYER}.ln_1", f"{BLOCK}.ln1"),
        *(same(f"{LAYER}.attn.{name}_proj", f"{BLOCK}.attn.{name}") for name in "qkv"),
        same(f"{LAYER}.attn.out_proj", f"{BLOCK}.attn.o"),
        same(f"{LAYER}.mlp.fc_in", f"{BLOCK}.mlp.up"),
        same(f"{LAYER}.mlp.fc_out", f"{BLOCK}.mlp.down"),
        *skipped(f"{LAYER}.attn.bias", f"{LAYER}.attn.masked_bias", f"{LAYER}.attn.embed_positions"),
    )
    return Table("gptj", rules, prefix="transformer.")


FAMILY = Family("gptj", ("gptj",), build, weights)

"""GPT-NeoX (arXiv 2204.06745) and Pythia (arXiv 2304.01373): parallel branches, partial rotary positions."""

from __future__ import annotations

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.families._rope import rotary
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, alias, fused, same, skipped

LAYER, BLOCK = "gpt_neox.layers.{l}", "stack.blocks.{l}"


def build(f: Fields) -> ModelConfig:
    n_layers, n_ctx = f.get("num_hidden_layers"), f.get("max_position_embeddings")
    d_model, n_heads, d_vocab = f.get("hidden_size"), f.get("num_attention_heads"), f.get("vocab_size")
    d_head = d_model // n_heads
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=d_model),
        stack=StackConfig(
            n_layers=n_layers,
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_head,
            n_kv_heads=n_heads,
            d_mlp=f.get("intermediate_size"),
            norm_eps=f.number("layer_norm_eps", default=1e-5),
            parallel=f.get("use_parallel_residual", default=True),
            attn_bias=frozenset({"q", "k", "v", "o"})
            if f.get("attention_bias", default=True)
            else frozenset(),
            rotary=(rotary(f, d_head, n_ctx, partial=0.25),) * n_layers,
            act_fn=f.activation("hidden_act", default="gelu"),
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model),
        tied=bool(f.get("tie_word_embeddings", default=False)),
    )


def weights(cfg: ModelConfig) -> Table:
    attention = f"{LAYER}.attention"
    rules = (
        same("gpt_neox.embed_in", "embed.tokens"),
        same("gpt_neox.final_layer_norm", "stack.ln_final"),
        same("embed_out", "unembed.linear"),
        alias(same("lm_head", "unembed.linear")),  # its name in memory
        same(f"{LAYER}.input_layernorm", f"{BLOCK}.ln1"),
        same(f"{LAYER}.post_attention_layernorm", f"{BLOCK}.ln2"),
        fused(  # head by head: its queries, keys, values
            f"{attention}.query_key_value",
            *(f"{BLOCK}.attn.{name}" for name in "qkv"),
            weight="(h n e) d -> n (h e) d",
            bias="(h n e) -> n (h e)",
            h=cfg.n_heads,
        ),
        same(f"{attention}.dense", f"{BLOCK}.attn.o"),
        same(f"{LAYER}.mlp.dense_h_to_4h", f"{BLOCK}.mlp.up"),
        same(f"{LAYER}.mlp.dense_4h_to_h", f"{BLOCK}.mlp.down"),
        *skipped(
            f"{attention}.bias",
            f"{attention}.masked_bias",
            f"{attention}.rotary_emb.inv_freq",
            "gpt_neox.rotary_emb.inv_freq",
        ),
    )
    return Table("gpt_neox", rules, prefix="gpt_neox.")


FAMILY = Family("gpt_neox", ("gpt_neox",), build, weights)

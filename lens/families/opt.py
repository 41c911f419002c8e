"""OPT (arXiv 2205.01068): positions skip two rows; opt-350m has narrow embeddings and norms after the sum."""

from __future__ import annotations

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, same, skipped

DECODER, LAYER, BLOCK = "model.decoder", "model.decoder.layers.{l}", "stack.blocks.{l}"


def build(f: Fields) -> ModelConfig:
    f.only("layer_norm_elementwise_affine", True)
    n_ctx = f.get("max_position_embeddings", default=2048)
    d_model, n_heads, d_vocab = f.get("hidden_size"), f.get("num_attention_heads"), f.get("vocab_size")
    d_embed = f.get("word_embed_proj_dim", default=d_model)
    before, bias = f.get("do_layer_norm_before", default=True), f.get("enable_bias", default=True)
    unnormed = f.get("_remove_final_layer_norm", default=False)
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=d_embed, n_positions=n_ctx, position_offset=2),
        stack=StackConfig(
            n_layers=f.get("num_hidden_layers"),
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_model // n_heads,
            n_kv_heads=n_heads,
            d_mlp=f.get("ffn_dim"),
            norm_placement=frozenset({"in"}) if before else frozenset({"add"}),
            final_norm=before and not unnormed,
            attn_bias=frozenset({"q", "k", "v", "o"}) if bias else frozenset(),
            mlp_bias=bias,
            act_fn=f.activation("activation_function", default="relu"),
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_embed),
        tied=bool(f.get("tie_word_embeddings", default=True)),
    )


def weights(cfg: ModelConfig) -> Table:
    attention = f"{LAYER}.self_attn"
    rules = (
        same(f"{DECODER}.embed_tokens", "embed.tokens"),
        same(f"{DECODER}.embed_positions", "embed.positions"),
        same(f"{DECODER}.project_in", "embed.project"),
        same(f"{DECODER}.project_out", "unembed.project"),
        same(f"{DECODER}.final_layer_norm", "stack.ln_final"),
        same("lm_head", "unembed.linear"),
        same(f"{LAYER}.self_attn_layer_norm", f"{BLOCK}.ln1"),
        same(f"{LAYER}.final_layer_norm", f"{BLOCK}.ln2"),
        *(same(f"{attention}.{name}_proj", f"{BLOCK}.attn.{name}") for name in "qkv"),
        same(f"{attention}.out_proj", f"{BLOCK}.attn.o"),
        same(f"{LAYER}.fc1", f"{BLOCK}.mlp.up"),
        same(f"{LAYER}.fc2", f"{BLOCK}.mlp.down"),
        *skipped(f"{DECODER}.version"),
    )
    return Table("opt", rules, prefix="model.")


FAMILY = Family("opt", ("opt",), build, weights)

"""Phi-1, 1.5 and 2 (arXiv 2306.11644): parallel branches behind one norm, partial rotary positions."""

from __future__ import annotations

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.families import _llama_like as like
from lens.families._rope import rotary
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, same, skipped


def build(f: Fields) -> ModelConfig:
    n_layers, n_ctx = like.sizes(f)
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
            n_kv_heads=f.get("num_key_value_heads", default=n_heads),
            d_mlp=f.get("intermediate_size"),
            norm_eps=f.number("layer_norm_eps", default=1e-5),
            parallel=True,
            shared_norm=True,
            attn_bias=frozenset({"q", "k", "v", "o"}),
            qk_norm="head" if f.get("qk_layernorm", default=False) else None,
            rotary=(rotary(f, d_head, n_ctx, partial=0.5),) * n_layers,
            act_fn=f.activation("hidden_act", default="gelu_new"),
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model, bias=True),
        tied=bool(f.get("tie_word_embeddings", default=False)),
    )


def weights(cfg: ModelConfig) -> Table:
    rules = (
        same("model.embed_tokens", "embed.tokens"),
        same("model.final_layernorm", "stack.ln_final"),
        same("lm_head", "unembed.linear"),
        *like.norms(ln1="input_layernorm"),
        *like.attention(output="dense"),
        *like.qk_norms("q_layernorm", "k_layernorm"),
        same(f"{like.LAYER}.mlp.fc1", f"{like.BLOCK}.mlp.up"),
        same(f"{like.LAYER}.mlp.fc2", f"{like.BLOCK}.mlp.down"),
        *skipped("model.rotary_emb.inv_freq", f"{like.LAYER}.self_attn.rotary_emb.inv_freq"),
    )
    return Table("phi", rules, prefix="model.")


FAMILY = Family("phi", ("phi",), build, weights)

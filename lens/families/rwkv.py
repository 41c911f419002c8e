"""RWKV-4 (arXiv 2305.13048): time mixing and channel mixing, a LayerNorm on the embedding, no positions."""

from __future__ import annotations

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.family import Family
from lens.fields import Fields
from lens.mixers.rwkv import Rwkv
from lens.weights import Rule, Table, fused, same

EPS = 1e-5
"""Of all norms: that at the end of the stack has no other in checkpoints."""


def build(f: Fields) -> ModelConfig:
    f.only("layer_norm_epsilon", EPS)
    d_model, d_vocab = f.get("hidden_size"), f.get("vocab_size")
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=f.get("context_length", "max_position_embeddings", default=1024),
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=d_model, norm_eps=EPS),
        stack=StackConfig(
            n_layers=f.get("num_hidden_layers"),
            d_model=d_model,
            n_heads=0,
            d_head=0,
            n_kv_heads=0,
            d_mlp=f.get("intermediate_size", default=4 * d_model),
            norm_eps=EPS,
            mixer=Rwkv(d_attn=f.get("attention_hidden_size", default=d_model)),
            halve_every=f.get("rescale_every", default=6) or None,
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model),
        tied=bool(f.get("tie_word_embeddings", default=False)),
    )


def weights(cfg: ModelConfig) -> Table:
    theirs, ours = "rwkv.blocks.{l}", "stack.blocks.{l}"
    time = {"key": "k", "value": "v", "receptance": "r", "output": "o"}
    channel = {"key": "up", "value": "down", "receptance": "r"}
    rules = (
        same("rwkv.embeddings", "embed.tokens"),
        same("rwkv.blocks.0.pre_ln", "embed.ln"),
        *(same(f"{theirs}.{name}", f"{ours}.{name}") for name in ("ln1", "ln2")),
        *(same(f"{theirs}.attention.{name}", f"{ours}.mixer.{name_}") for name, name_ in time.items()),
        *(same(f"{theirs}.feed_forward.{name}", f"{ours}.mlp.{name_}") for name, name_ in channel.items()),
        same(f"{theirs}.attention.time_decay", f"{ours}.mixer.decay.weight"),
        same(f"{theirs}.attention.time_first", f"{ours}.mixer.first.weight"),
        *_mixtures(f"{theirs}.attention", f"{ours}.mixer", key="k", value="v", receptance="r"),
        *_mixtures(f"{theirs}.feed_forward", f"{ours}.mlp", key="k", receptance="r"),
        same("rwkv.ln_out", "stack.ln_final"),
        same("head", "unembed.linear"),
    )
    return Table("rwkv", rules, prefix="rwkv.")


def _mixtures(theirs: str, ours: str, **names: str) -> tuple[Rule, ...]:
    """How much of a position each projection reads; the rest is of the one before."""
    return tuple(
        fused(f"{theirs}.time_mix_{name}", f"{ours}.mix_{name_}.weight", weight="1 1 d -> d")
        for name, name_ in names.items()
    )


FAMILY = Family("rwkv", ("rwkv",), build, weights)

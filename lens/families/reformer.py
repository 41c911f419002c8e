"""Reformer (arXiv 2001.04451): two streams, attention by hash or by chunks, positions on a map.

Hugging Face draws new hashes in every run unless the config has a `hash_seed`; here they are those of seed 0. Where the
number of buckets is not stated, the library takes it from the first text that it sees; here it is that of the
longest.
"""

from __future__ import annotations

from math import isqrt, lcm, prod
from typing import Any

from lens.config import EmbedConfig, ModelConfig, StackConfig, UnembedConfig
from lens.family import Family
from lens.fields import Fields
from lens.mixers.local_chunks import LocalChunks
from lens.mixers.lsh import Lsh
from lens.nearest import unknown
from lens.weights import Table, fused, same

KINDS = ("local", "lsh")


def build(f: Fields) -> ModelConfig:
    f.ignore("axial_norm_std", "chunk_size_lm_head", "num_attention_layers")
    f.ignore("lsh_attention_probs_dropout_prob", "local_attention_probs_dropout_prob")
    f.ignore(
        "num_chunks_before", "num_chunks_after", "intermediate_size"
    )  # of older files: nothing reads them
    f.only("sinusoidal_pos_embds", False)
    layers = f.get("attn_layers", default=["local", "lsh"] * 3)
    for kind in layers:
        if kind not in KINDS:
            raise ValueError(f"{f.family} config field attn_layers: {unknown('layer type', kind, KINDS)}")
    f.only("num_hidden_layers", len(layers))
    d_model, d_vocab = f.get("hidden_size", default=256), f.get("vocab_size", default=320)
    n_heads = f.get("num_attention_heads", default=12)
    n_ctx = f.get("max_position_embeddings", default=4096)
    axes = None
    if f.get("axial_pos_embds", default=True):
        shape, widths = (
            f.get("axial_pos_shape", default=[64, 64]),
            f.get("axial_pos_embds_dim", default=[64, 192]),
        )
        axes = ((shape[0], widths[0]), (shape[1], widths[1]))
        n_ctx = min(n_ctx, prod(shape))
    else:
        f.ignore("axial_pos_shape", "axial_pos_embds_dim")
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=EmbedConfig(
            d_vocab=d_vocab,
            d_embed=d_model,
            n_positions=n_ctx if axes is None else axes[0][0] * axes[1][0],
            axial=axes,
            copies=2,
        ),
        stack=StackConfig(
            n_layers=len(layers),
            d_model=2 * d_model,
            streams=2,
            n_heads=n_heads,
            d_head=f.get("attention_head_size", default=64),
            n_kv_heads=n_heads,
            d_mlp=f.get("feed_forward_size", default=512),
            causal=f.get("is_decoder", default=False),
            norm_eps=f.number("layer_norm_eps", default=1e-12),
            act_fn=f.activation("hidden_act", default="relu"),
            mixer=mixers(f, layers, n_ctx),
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=2 * d_model, bias=True)
        if f.has("lm_head.decoder.weight", "lm_head.bias", unknown=True)
        else None,
        tied=bool(f.get("tie_word_embeddings", default=False)),
    )


def mixers(f: Fields, layers: list[str], n_ctx: int) -> tuple[LocalChunks | Lsh, ...]:
    """What mixes positions in each layer."""
    lengths = {kind: f.get(f"{kind}_attn_chunk_length", default=64) for kind in KINDS}
    used = {lengths[kind] for kind in layers}
    common: dict[str, Any] = {"least": min(used), "multiple": lcm(*used)}

    def chunked(kind: str) -> dict[str, Any]:
        before, after = (
            f.get(f"{kind}_num_chunks_{side}", default=n) for side, n in (("before", 1), ("after", 0))
        )
        return {"chunk": lengths[kind], "before": before, "after": after, **common}

    n = f.get("num_buckets", default=None, null=None)
    n = _n_buckets(lengths["lsh"], n_ctx) if n is None else n
    local = LocalChunks(**chunked("local"))
    lsh = Lsh(
        n_buckets=(n,) if isinstance(n, int) else tuple(n),
        n_hashes=f.get("num_hashes", default=1),
        seed=f.get("hash_seed", default=0, null=0),
        **chunked("lsh"),
    )
    return tuple(local if kind == "local" else lsh for kind in layers)


def _n_buckets(chunk: int, n_ctx: int) -> int | list[int]:
    """Twice as many as chunks, rounded down to a power of two; two factors where that is much."""
    power = (2 * (n_ctx // chunk)).bit_length() - 1
    if 2**power <= 2 * max(isqrt(n_ctx // chunk), chunk):
        return 2**power
    return [2 ** (power // 2), 2 ** (power - power // 2)]


def weights(cfg: ModelConfig) -> Table:
    embed, layer, block = "reformer.embeddings", "reformer.encoder.layers.{l}", "stack.blocks.{l}"
    attention, mlp = f"{layer}.attention", f"{layer}.feed_forward"
    projections = {"query": "q", "key": "k", "query_key": "qk", "value": "v"}
    positions = f"{embed}.position_embeddings"
    rules = (
        same(f"{embed}.word_embeddings", "embed.tokens"),
        same(f"{positions}.embedding", "embed.positions"),
        fused(f"{positions}.weights.0", "embed.positions.rows.weight", weight="n 1 x -> n x"),
        fused(f"{positions}.weights.1", "embed.positions.columns.weight", weight="1 n x -> n x"),
        *(
            same(f"{attention}.self_attention.{theirs}", f"{block}.attn.{ours}")
            for theirs, ours in projections.items()
        ),
        same(f"{attention}.output.dense", f"{block}.attn.o"),
        same(f"{attention}.layer_norm", f"{block}.ln1"),
        same(f"{mlp}.layer_norm", f"{block}.ln2"),
        same(f"{mlp}.dense.dense", f"{block}.mlp.up"),
        same(f"{mlp}.output.dense", f"{block}.mlp.down"),
        same("reformer.encoder.layer_norm", "stack.ln_final"),
        same("lm_head.decoder.weight", "unembed.linear.weight"),
        same("lm_head.bias", "unembed.linear.bias"),
    )
    return Table("reformer", rules, prefix="reformer.")


FAMILY = Family("reformer", ("reformer",), build, weights)

"""Perceiver IO for text (arXiv 2107.14795): latents read bytes, then each other again and again; positions read them.

The encoder's stream are the latents; the decoder is one block over all positions, which says a token for each.
"""

from __future__ import annotations

from lens.config import EmbedConfig, ModelConfig, SourceConfig, StackConfig, UnembedConfig
from lens.family import Family
from lens.fields import Fields
from lens.mixers.perceiver import Perceiver
from lens.weights import Rule, Table, same

IMAGES = (
    "image_size", "train_size", "num_frames", "audio_samples_per_frame", "samples_per_patch", "output_shape",
    "output_num_channels", "_label_trainable_num_channels",
)  # fmt: skip
HEADS, QUERIES = 8, 256  # of the decoder: the library writes them into its code


def build(f: Fields) -> ModelConfig:
    f.ignore(*IMAGES, "layer_norm_eps", "num_hidden_layers")  # nothing of a model of texts reads them
    d_model, d_latents = f.get("d_model", default=768), f.get("d_latents", default=1280)
    n_ctx, d_vocab = f.get("max_position_embeddings", default=2048), f.get("vocab_size", default=262)
    act_fn = f.activation("hidden_act", default="gelu")
    texts = EmbedConfig(
        d_vocab=d_vocab,
        d_embed=d_model,
        n_positions=n_ctx,
        latents=(f.get("num_latents", default=256), d_latents),
    )
    common = {
        "norm_eps": 1e-5,
        "final_norm": False,
        "causal": False,
        "act_fn": act_fn,
        "attn_bias": frozenset("qkvo"),
    }
    says = Perceiver(
        n_heads=HEADS, d_head=QUERIES // HEADS, d_value=d_model // HEADS, d_source=d_latents, adds=False
    )
    masked = f.has("embedding_decoder.bias", unknown=True)
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=EmbedConfig(d_vocab=0, d_embed=d_model, n_positions=n_ctx, empty=True),
        stack=StackConfig(
            n_layers=1, d_model=d_model, n_heads=HEADS, d_head=says.d_head, n_kv_heads=HEADS, d_mlp=d_model,
            mixer=says, **common,
        ),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model, bias=True) if masked else None,
        source=SourceConfig(embed=texts, stack=_latents(f, d_model, d_latents, **common), shared=False),
        tied=masked,
    )  # fmt: skip


def _latents(f: Fields, d_model: int, d_latents: int, **common: object) -> StackConfig:
    """A block that reads the text, and the same few blocks of latents several times."""
    widening = f.get("self_attention_widening_factor", default=1)
    f.only("cross_attention_widening_factor", widening)
    shape = f.get("cross_attention_shape_for_attention", default="kv")
    f.only("cross_attention_shape_for_attention", "q", "kv")
    queries, values = (f.get(f"{name}_channels", default=None, null=None) for name in ("qk", "v"))

    def attention(heads: int, width: int, **fields: object) -> Perceiver:
        e = queries or width
        return Perceiver(n_heads=heads, d_head=e // heads, d_value=(values or e) // heads, **fields)  # type: ignore[arg-type]

    n_heads = f.get("num_self_attention_heads", default=8)
    n, times = f.get("num_self_attends_per_block", default=26), f.get("num_blocks", default=1)
    reads = attention(
        f.get("num_cross_attention_heads", default=8),
        d_model if shape == "kv" else d_latents,
        d_source=d_model,
        adds=f.get("use_query_residual", default=True),
    )
    own = attention(n_heads, d_latents)
    return StackConfig(
        n_layers=1 + n * times, d_model=d_latents, n_heads=n_heads, d_head=own.d_head, n_kv_heads=n_heads,
        d_mlp=widening * d_latents, mixer=(reads, *[own] * (n * times)),
        shared=None if times == 1 else (0, *(1 + i % n for i in range(n * times))),
        **common,  # type: ignore[arg-type]
    )  # fmt: skip


def _layer(theirs: str, ours: str, *, source: bool) -> tuple[Rule, ...]:
    names = {
        "attention.self.layernorm1": "ln1",
        **({"attention.self.layernorm2": "attn.ln_source"} if source else {}),
        **{f"attention.self.{name}": f"attn.{name[0]}" for name in ("query", "key", "value")},
        "attention.output.dense": "attn.o",
        "layernorm": "ln2",
        "mlp.dense1": "mlp.up",
        "mlp.dense2": "mlp.down",
    }
    return tuple(same(f"{theirs}.{a}", f"{ours}.{b}") for a, b in names.items())


def weights(cfg: ModelConfig) -> Table:
    assert cfg.source is not None
    stack, given = cfg.source.stack, "perceiver.input_preprocessor"
    n = len(set(stack.shared)) if stack.shared else stack.n_layers
    decoder, ours = "perceiver.decoder", "encoder.stack.blocks"
    rules = [
        same("perceiver.embeddings.latents", "encoder.embed.latents.weight"),
        same(f"{given}.embeddings", "encoder.embed.tokens"),
        same(f"{given}.position_embeddings", "encoder.embed.positions"),
        *_layer("perceiver.encoder.cross_attention", f"{ours}.0", source=True),
        same(f"{decoder}.output_position_encodings.position_embeddings", "embed.positions.weight"),
        *_layer(f"{decoder}.decoding_cross_attention", "stack.blocks.0", source=True),
        same("embedding_decoder.bias", "unembed.linear.bias"),
    ]
    for layer in range(1, n):
        rules += _layer(f"perceiver.encoder.self_attends.{layer - 1}", f"{ours}.{layer}", source=False)
    return Table("perceiver", tuple(rules), prefix="perceiver.")


FAMILY = Family("perceiver", ("perceiver",), build, weights)

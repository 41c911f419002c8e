"""Whisper (arXiv 2212.04356): mel frames through two convolutions, pre-norm stacks, keys without a bias."""

from __future__ import annotations

from typing import Any

from lens.config import EmbedConfig, MelConfig, ModelConfig, SourceConfig, UnembedConfig
from lens.families import _bart_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, same


def build(f: Fields) -> ModelConfig:
    f.only("is_encoder_decoder", True)
    f.only("scale_embedding", False)
    f.ignore("num_hidden_layers", "encoder_layerdrop", "decoder_layerdrop")
    f.ignore(
        "use_weighted_layer_sum", "classifier_proj_size"
    )  # of the classifier of sounds, which is not read
    f.ignore("apply_spec_augment", *(f"mask_{axis}_{name}" for axis in ("time", "feature") for name in SPANS))
    f.ignore("median_filter_width")  # of the times of words
    d_model, d_vocab = f.get("d_model"), f.get("vocab_size")
    f.only("hidden_size", d_model)
    n_source, n_target = (
        f.get("max_source_positions", default=1500),
        f.get("max_target_positions", default=448),
    )
    mel = MelConfig(n_mels=f.get("num_mel_bins", default=80), n_frames=2 * n_source)
    shape: dict[str, Any] = {
        "norm_placement": frozenset({"in"}),
        "final_norm": True,
        "attn_bias": frozenset({"q", "v", "o"}),
    }
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_target,
        embed=EmbedConfig(d_vocab=d_vocab, d_embed=d_model, n_positions=n_target),
        stack=like.stack(f, "decoder", causal=True, cross=True, **shape),
        unembed=UnembedConfig(d_vocab=d_vocab, d_embed=d_model),
        source=SourceConfig(
            embed=EmbedConfig(d_vocab=0, d_embed=d_model, n_positions=n_source, mel=mel),
            stack=like.stack(f, "encoder", causal=False, **shape),
            shared=False,
        ),
        start_token=f.get("decoder_start_token_id", default=None),
        forced=_forced(f.get("forced_decoder_ids", default=None) or []),
        tied=bool(f.get("tie_word_embeddings", default=True)),
    )


SPANS = ("prob", "length", "min_masks")


def _forced(pairs: list[Any]) -> tuple[int, ...]:
    """The tokens behind the first, from pairs of a position and a token; up to the first that is left open."""
    by_place = dict(pairs)
    found = []
    while by_place.get(len(found) + 1) is not None:
        found.append(by_place[len(found) + 1])
    return tuple(found)


def weights(cfg: ModelConfig) -> Table:
    ends = (
        *(same(f"model.encoder.conv{i}", f"encoder.embed.mel.conv{i}") for i in (1, 2)),
        *(
            same(f"model.{side}.{theirs}", f"{ours}{name}")
            for side, ours in like.SIDES.items()
            for theirs, name in {"embed_positions": "embed.positions", "layer_norm": "stack.ln_final"}.items()
        ),
    )
    return like.weights(cfg, *ends, head="proj_out")


FAMILY = Family("whisper", ("whisper",), build, weights)

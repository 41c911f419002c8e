"""The original transformer (arXiv 1706.03762) as Marian trains it: sinusoidal positions, norms after each sum."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _bart_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, alias, same


def build(f: Fields) -> ModelConfig:
    f.only("normalize_before", False)
    f.only("normalize_embedding", False)
    f.only("add_final_layer_norm", False)
    f.only("static_position_embeddings", True)
    f.only("extra_pos_embeddings", 0, 1)  # of no effect where positions are computed
    f.ignore("add_bias_logits", "force_bos_token_to_be_generated")
    shared = bool(f.get("share_encoder_decoder_embeddings", default=True))
    target = f.get("decoder_vocab_size", default=None)
    return like.build(f, shared=shared, d_vocab=None if shared else target, sinusoidal=True)


def weights(cfg: ModelConfig) -> Table:
    positions = (
        alias(same(f"model.{side}.embed_positions", f"{prefix}embed.positions"))
        for side, prefix in like.SIDES.items()
    )
    return like.weights(cfg, *positions)


FAMILY = Family("marian", ("marian",), build, weights)

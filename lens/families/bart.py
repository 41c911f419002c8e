"""BART (arXiv 1910.13461): learned positions that skip two rows, norms on the embeddings."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _bart_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, same


def build(f: Fields) -> ModelConfig:
    f.only("normalize_before", False)
    f.only("normalize_embedding", True)
    f.only("add_final_layer_norm", False)
    f.only("static_position_embeddings", False)
    f.only("extra_pos_embeddings", 2)
    f.ignore("add_bias_logits", "force_bos_token_to_be_generated")
    return like.build(f, position_offset=2, norm_eps=1e-5)


def weights(cfg: ModelConfig) -> Table:
    names = {"embed_positions": "positions", "layernorm_embedding": "ln"}
    ends = (
        same(f"model.{side}.{theirs}", f"{prefix}embed.{ours}")
        for side, prefix in like.SIDES.items()
        for theirs, ours in names.items()
    )
    return like.weights(cfg, *ends)


FAMILY = Family("bart", ("bart",), build, weights)

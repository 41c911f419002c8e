"""T5 (arXiv 1910.10683), T5 v1.1 and Flan-T5: buckets of distances, RMSNorm, no biases."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _t5_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    tied = f.get("tie_word_embeddings", default=True) is not False
    scaled = bool(f.get("scale_decoder_outputs", default=tied))
    return like.build(f, scaled=scaled, tied=tied)


def weights(cfg: ModelConfig) -> Table:
    return like.weights(cfg)


FAMILY = Family("t5", ("t5",), build, weights)

"""mT5 (arXiv 2010.11934): T5's shape with gated MLPs; the last stream is not scaled."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _t5_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table


def build(f: Fields) -> ModelConfig:
    tied = f.get("tie_word_embeddings", default=True) is not False
    return like.build(f, scaled=False, tied=tied, feed_forward="gated-gelu")


def weights(cfg: ModelConfig) -> Table:
    return like.weights(cfg)


FAMILY = Family("mt5", ("mt5",), build, weights)

"""BERT (arXiv 1810.04805) and models of its shape: MiniLM, TinyBERT, sentence encoders made from them."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _bert_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, same, skipped


def build(f: Fields) -> ModelConfig:
    f.only("position_embedding_type", "absolute")
    stack, embed = like.stack(f), like.embed(f)
    pooler = like.pooler(f, "bert.pooler.dense.weight", "pooler.dense.weight")
    masked = f.has("cls.predictions.transform.dense.weight", unknown=True)
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=f.get("max_position_embeddings", default=512),
        embed=embed,
        stack=stack,
        unembed=like.unembed(f, stack.act_fn) if masked else None,
        pooler=pooler,
        classifier=like.classifier(f, text="bert.pooler.dense", pair="cls.seq_relationship"),
        tied=masked and bool(f.get("tie_word_embeddings", default=True)),
    )


def weights(cfg: ModelConfig) -> Table:
    rules = (
        *like.embeddings("bert.embeddings"),
        *like.layers("bert.encoder.layer.{l}"),
        same("bert.pooler.dense", "pooler.dense"),
        *like.mlm_head("cls.predictions", dense="transform.dense", norm="transform.LayerNorm"),
        *like.classes(cfg, follows="cls.seq_relationship"),
        *skipped("bert.embeddings.position_ids", "bert.embeddings.token_type_ids"),
    )
    return Table("bert", rules, prefix="bert.")


FAMILY = Family("bert", ("bert",), build, weights)

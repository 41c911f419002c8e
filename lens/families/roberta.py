"""RoBERTa (arXiv 1907.11692) and XLM-RoBERTa: BERT's shape; positions begin after the padding token's id."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _bert_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, same, skipped


def build(f: Fields) -> ModelConfig:
    f.only("position_embedding_type", "absolute")
    offset = f.get("pad_token_id", default=1) + 1
    n_ctx = f.get("max_position_embeddings", default=512) - offset
    masked = f.has("lm_head.dense.weight", unknown=True)
    # a classifier of texts brings a layer of its own; a pooler beside it is not used
    pooler = like.pooler(f, "classifier.dense.weight", "roberta.pooler.dense.weight", "pooler.dense.weight")
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=like.embed(f, n_positions=n_ctx, position_offset=offset),
        stack=like.stack(f),
        unembed=like.unembed(f, "gelu") if masked else None,
        pooler=pooler,
        classifier=like.classifier(f, text="classifier.dense"),
        tied=masked and bool(f.get("tie_word_embeddings", default=True)),
    )


def weights(cfg: ModelConfig) -> Table:
    unused = "roberta.pooler.dense"
    of_text = cfg.classifier is not None and cfg.classifier.of == "text"
    pooler = (same("classifier.dense", "pooler.dense"), *skipped(f"{unused}.weight", f"{unused}.bias"))
    rules = (
        *like.embeddings("roberta.embeddings"),
        *like.layers("roberta.encoder.layer.{l}"),
        *(pooler if of_text else (same("roberta.pooler.dense", "pooler.dense"),)),
        *like.mlm_head("lm_head", dense="dense", norm="layer_norm"),
        *like.classes(cfg, label="classifier.out_proj" if of_text else "classifier"),
        *skipped("roberta.embeddings.position_ids", "roberta.embeddings.token_type_ids"),
    )
    return Table("roberta", rules, prefix="roberta.")


FAMILY = Family("roberta", ("roberta", "xlm-roberta", "camembert"), build, weights)

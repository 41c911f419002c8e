"""DistilBERT (arXiv 1910.01108): BERT's shape without token types and pooler."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _bert_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, same, skipped

LAYER, BLOCK = "distilbert.transformer.layer.{l}", like.BLOCK


def build(f: Fields) -> ModelConfig:
    f.ignore("sinusoidal_pos_embds")  # where training began; the table is stored either way
    stack = like.stack(f)
    masked = f.has("vocab_transform.weight", unknown=True)
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=f.get("max_position_embeddings", default=512),
        embed=like.embed(f, n_types=0),
        stack=stack,
        unembed=like.unembed(f, stack.act_fn) if masked else None,
        pooler=like.pooler(f, "pre_classifier.weight", act_fn="relu"),
        classifier=like.classifier(f, text="pre_classifier"),
        tied=masked and bool(f.get("tie_word_embeddings", default=True)),
    )


def weights(cfg: ModelConfig) -> Table:
    attention = {"q_lin": "q", "k_lin": "k", "v_lin": "v", "out_lin": "o"}
    rules = (
        *like.embeddings("distilbert.embeddings"),
        *(same(f"{LAYER}.attention.{theirs}", f"{BLOCK}.attn.{ours}") for theirs, ours in attention.items()),
        same(f"{LAYER}.sa_layer_norm", f"{BLOCK}.ln1"),
        same(f"{LAYER}.ffn.lin1", f"{BLOCK}.mlp.up"),
        same(f"{LAYER}.ffn.lin2", f"{BLOCK}.mlp.down"),
        same(f"{LAYER}.output_layer_norm", f"{BLOCK}.ln2"),
        same("vocab_transform", "unembed.transform.dense"),
        same("vocab_layer_norm", "unembed.transform.ln"),
        same("vocab_projector", "unembed.linear"),
        same("pre_classifier", "pooler.dense"),
        *like.classes(cfg),
        *skipped("distilbert.embeddings.position_ids"),
    )
    return Table("distilbert", rules, prefix="distilbert.")


FAMILY = Family("distilbert", ("distilbert",), build, weights)

"""BigBird (arXiv 2007.14062): BERT's shape; attention by blocks, or full attention."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _bert_like as like
from lens.family import Family
from lens.fields import Fields
from lens.mixers.big_bird import BigBird
from lens.nearest import unknown
from lens.weights import Table, same, skipped

KINDS = ("original_full", "block_sparse")


def build(f: Fields) -> ModelConfig:
    kind = f.get("attention_type", default="block_sparse")
    if kind not in KINDS:
        raise ValueError(f"{f.family} config field attention_type: {unknown('kind', kind, KINDS)}")
    f.only("position_embedding_type", "absolute")
    blocks = BigBird(block=f.get("block_size", default=64), n_random=f.get("num_random_blocks", default=3))
    biased = frozenset("qkvo") if f.get("use_bias", default=True) else frozenset("o")
    stack = like.stack(
        f, act_fn="gelu_new", attn_bias=biased, mixer=blocks if kind == "block_sparse" else None
    )
    masked = f.has("cls.predictions.transform.dense.weight", unknown=True)
    if f.has("qa_classifier.qa_outputs.weight"):
        raise ValueError(f"{f.family}: models that answer questions are not supported")
    of_text = f.has("classifier.dense.weight")
    pooler = like.pooler(
        f,
        *("classifier.dense.weight", "bert.pooler.weight", "pooler.weight"),
        act_fn=stack.act_fn if of_text else "tanh",
    )
    rescaled = f.get("rescale_embeddings", default=False)
    n_ctx = f.get("max_position_embeddings", default=4096)
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=like.embed(f, n_positions=n_ctx, scale=stack.d_model**0.5 if rescaled else 1.0),
        stack=stack,
        unembed=like.unembed(f, stack.act_fn) if masked else None,
        pooler=pooler,
        classifier=like.classifier(f, text="classifier.dense", pair="cls.seq_relationship"),
        tied=masked and bool(f.get("tie_word_embeddings", default=True)),
    )


def weights(cfg: ModelConfig) -> Table:
    pooler, of_text = "bert.pooler", cfg.classifier is not None and cfg.classifier.of == "text"
    own = of_text and cfg.classifier is not None and cfg.classifier.task == "label"
    unused = (same("classifier.dense", "pooler.dense"), *skipped(f"{pooler}.weight", f"{pooler}.bias"))
    rules = (
        *like.embeddings("bert.embeddings"),
        *like.layers("bert.encoder.layer.{l}"),
        *(unused if own else (same(pooler, "pooler.dense"),)),
        *like.mlm_head("cls.predictions", dense="transform.dense", norm="transform.LayerNorm"),
        *like.classes(
            cfg, label="classifier.out_proj" if own else "classifier", follows="cls.seq_relationship"
        ),
        *skipped("bert.embeddings.position_ids", "bert.embeddings.token_type_ids"),
    )
    return Table("big_bird", rules, prefix="bert.")


FAMILY = Family("big_bird", ("big_bird",), build, weights)

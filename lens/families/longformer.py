"""Longformer (arXiv 2004.05150): RoBERTa's shape; a window on both sides, and tokens that see everything.

Which tokens are global is said by the inputs (`ModelInputs.global_tokens`); classifiers of texts make the
first token global by themselves.
"""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _bert_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, same, skipped


def build(f: Fields) -> ModelConfig:
    f.only("position_embedding_type", "absolute")
    f.only("attention_mode", "longformer")
    f.ignore("onnx_export", "ignore_attention_mask", "attention_dilation", "autoregressive")
    offset = f.get("pad_token_id", default=1) + 1
    n_ctx = f.get("max_position_embeddings", default=512) - offset
    n_layers, windows = f.get("num_hidden_layers"), f.get("attention_window", default=512)
    windows = [windows] * n_layers if isinstance(windows, int) else windows
    if len(windows) != n_layers or any(width < 2 or width % 2 for width in windows):
        wanted = f"an even number, or one for each of {n_layers} layers"
        raise ValueError(f"longformer config field attention_window={windows!r} should be {wanted}")
    masked = f.has("lm_head.dense.weight", unknown=True)
    classifier = like.classifier(f, text="classifier.dense")
    if classifier is not None and classifier.task == "answer":
        raise ValueError("longformer: models that answer questions are not supported")
    of_text = classifier is not None and classifier.of == "text"
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=like.embed(f, n_positions=n_ctx, position_offset=offset),
        stack=like.stack(
            f,
            windows=tuple(width // 2 + 1 for width in windows),
            global_tokens="first" if of_text else "asked",
        ),
        unembed=like.unembed(f, "gelu") if masked else None,
        pooler=like.pooler(
            f, "classifier.dense.weight", "longformer.pooler.dense.weight", "pooler.dense.weight"
        ),
        classifier=classifier,
        tied=masked and bool(f.get("tie_word_embeddings", default=True)),
    )


def weights(cfg: ModelConfig) -> Table:
    of_text = cfg.classifier is not None and cfg.classifier.of == "text"
    everywhere = {f"{theirs}_global": f"{ours}_global" for theirs, ours in like.QKV.items()}
    rules = (
        *like.embeddings("longformer.embeddings"),
        *like.layers("longformer.encoder.layer.{l}", like.QKV | everywhere),
        same("classifier.dense" if of_text else "longformer.pooler.dense", "pooler.dense"),
        *like.mlm_head("lm_head", dense="dense", norm="layer_norm"),
        *like.classes(cfg, label="classifier.out_proj" if of_text else "classifier"),
        *skipped("longformer.embeddings.position_ids"),
    )
    return Table("longformer", rules, prefix="longformer.")


FAMILY = Family("longformer", ("longformer",), build, weights)

"""DeBERTa v2 and v3 (arXiv 2006.03654, 2111.09543): positions meet content in the scores, disentangled from it.

The convolution of DeBERTa v2 xlarge and xxlarge is refused.
"""

from __future__ import annotations

import math
from typing import Any

from lens.config import Disentangled, ModelConfig
from lens.families import _bert_like as like
from lens.family import Family
from lens.fields import Fields
from lens.nearest import unknown
from lens.weights import Rule, Table, alias, same, skipped


def build(f: Fields) -> ModelConfig:
    d_model, n_ctx = f.get("hidden_size"), f.get("max_position_embeddings", default=512)
    f.only("conv_kernel_size", 0)
    f.only("embedding_size", d_model)
    f.only("pooler_hidden_size", d_model)
    f.ignore("conv_act", "conv_groups", "legacy", "pooler_dropout", "cls_dropout", "summary_activation")
    terms = f.get("pos_att_type", default=None) or []
    terms = terms.split("|") if isinstance(terms, str) else terms
    if strange := [term for term in terms if term not in ("c2p", "p2c")]:
        raise ValueError(
            f"deberta_v2 config field pos_att_type: {unknown('term', strange[0], ('c2p', 'p2c'))}"
        )
    eps = f.number("layer_norm_eps", default=1e-7)
    d_head = f.get("attention_head_size", default=d_model // f.get("num_attention_heads"))
    n_terms = 1 + ("c2p" in terms) + ("p2c" in terms)
    stack = like.stack(
        f,
        d_head=d_head,
        norm_eps=eps,
        attn_scale=_scale(d_head * n_terms),
        relative=_relative(f, terms, n_ctx),
    )
    masked = f.has(
        "cls.predictions.transform.dense.weight", "lm_predictions.lm_head.dense.weight", unknown=True
    )
    positions = n_ctx if f.get("position_biased_input", default=True) else None
    act_fn = f.activation("pooler_hidden_act", default="gelu")
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=n_ctx,
        embed=like.embed(f, n_positions=positions, n_types=f.get("type_vocab_size", default=0), norm_eps=eps),
        stack=stack,
        unembed=like.unembed(f, stack.act_fn, norm_eps=eps) if masked else None,
        pooler=like.pooler(f, "pooler.dense.weight", act_fn=act_fn),
        classifier=like.classifier(f, text="pooler.dense"),
        tied=masked and bool(f.get("tie_word_embeddings", default=True)),
    )


def _relative(f: Fields, terms: list[str], n_ctx: int) -> Disentangled | None:
    buckets, reach = f.get("position_buckets", default=-1), f.get("max_relative_positions", default=-1)
    kinds = {kind.strip() for kind in f.get("norm_rel_ebd", default="none").lower().split("|")}
    shared = bool(f.get("share_att_key", default=False))
    if not f.get("relative_attention", default=False):
        return None
    reach = reach if reach > 0 else n_ctx
    names: dict[str, Any] = {"c2p": "k", "p2c": "q"}
    return Disentangled(
        span=buckets if buckets > 0 else reach,
        max_distance=reach,
        log_from=buckets // 2 if buckets > 0 else None,
        terms=frozenset(names[term] for term in terms if term in names),
        shared=shared,
        norm="layer_norm" in kinds,
    )


def _scale(width: int) -> float:
    """1 / √width as checkpoints were trained with it: the root is rounded to float32."""
    import torch

    return 1.0 / float(torch.tensor(math.sqrt(width), dtype=torch.float32))


def weights(cfg: ModelConfig) -> Table:
    encoder = "deberta.encoder"
    projections = {"query_proj": "q", "key_proj": "k", "value_proj": "v"}
    positions = {f"pos_{theirs}_proj": f"pos_{ours}" for theirs, ours in (("query", "q"), ("key", "k"))}
    rules = (
        *like.embeddings("deberta.embeddings"),
        same(f"{encoder}.rel_embeddings", "stack.relative.table"),
        same(f"{encoder}.LayerNorm", "stack.relative.ln"),
        *like.layers(f"{encoder}.layer.{{l}}", projections | positions),
        same("pooler.dense", "pooler.dense"),
        *_heads(newer=cfg.hf.get("legacy") is False),
        *like.classes(cfg),
        *skipped("deberta.embeddings.position_ids", *_DISCRIMINATOR),
    )
    return Table("deberta_v2", rules, prefix="deberta.")


_DISCRIMINATOR = tuple(
    f"mask_predictions.{part}.{leaf}"
    for part in ("dense", "LayerNorm", "classifier")
    for leaf in ("weight", "bias")
)


def _heads(newer: bool) -> tuple[Rule, ...]:
    """The masked language model's head under its two names; one of them is written."""
    path = "lm_predictions.lm_head"
    named = (
        same(f"{path}.dense", "unembed.transform.dense"),
        same(f"{path}.LayerNorm", "unembed.transform.ln"),
        same(f"{path}.bias", "unembed.linear.bias"),
    )
    legacy = like.mlm_head("cls.predictions", dense="transform.dense", norm="transform.LayerNorm")
    return (*named, *map(alias, legacy)) if newer else (*legacy, *map(alias, named))


FAMILY = Family("deberta_v2", ("deberta-v2",), build, weights)

"""ALBERT (arXiv 1909.11942): narrow embeddings, and layers that share one set of parameters, or a few."""

from __future__ import annotations

from lens.config import ModelConfig
from lens.families import _bert_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Rule, Table, same, skipped


def build(f: Fields) -> ModelConfig:
    f.only("position_embedding_type", "absolute")
    f.only("inner_group_num", 1)
    f.only("net_structure_type", 0)
    f.only("gap_size", 0)
    f.only("num_memory_blocks", 0)
    f.ignore("down_scale_factor")
    n_layers, n_groups = f.get("num_hidden_layers"), f.get("num_hidden_groups", default=1)
    groups = [int(layer / (n_layers / n_groups)) for layer in range(n_layers)]
    d_embed = f.get("embedding_size", default=128)
    stack = like.stack(f, act_fn="gelu_new", shared=tuple(groups.index(g) for g in groups))
    masked = f.has("predictions.dense.weight", unknown=True)
    return ModelConfig(
        family=f.family,
        name=f.family,
        n_ctx=f.get("max_position_embeddings", default=512),
        embed=like.embed(f, d_embed=d_embed, project="sum"),
        stack=stack,
        unembed=like.unembed(f, stack.act_fn, d_embed=d_embed) if masked else None,
        pooler=like.pooler(f, "albert.pooler.weight", "pooler.weight"),
        classifier=like.classifier(f, text="albert.pooler", pair="sop_classifier.classifier"),
        tied=masked and bool(f.get("tie_word_embeddings", default=True)),
    )


def weights(cfg: ModelConfig) -> Table:
    firsts = sorted(set(cfg.stack.shared or ()))
    rules = (
        *like.embeddings("albert.embeddings"),
        same("albert.encoder.embedding_hidden_mapping_in", "embed.project"),
        *(rule for group, first in enumerate(firsts) for rule in _group(group, first)),
        same("albert.pooler", "pooler.dense"),
        *like.mlm_head("predictions", dense="dense", norm="LayerNorm"),
        *like.classes(cfg, follows="sop_classifier.classifier"),
        *skipped("albert.embeddings.position_ids", "albert.embeddings.token_type_ids"),
    )
    return Table("albert", rules, prefix="albert.")


def _group(group: int, first: int) -> tuple[Rule, ...]:
    """The parameters of a group of layers, which are ours of its first layer."""
    theirs, ours = f"albert.encoder.albert_layer_groups.{group}.albert_layers.0", f"stack.blocks.{first}"
    attention = {"query": "q", "key": "k", "value": "v", "dense": "o"}
    return (
        *(same(f"{theirs}.attention.{a}", f"{ours}.attn.{b}") for a, b in attention.items()),
        same(f"{theirs}.attention.LayerNorm", f"{ours}.ln1"),
        same(f"{theirs}.ffn", f"{ours}.mlp.up"),
        same(f"{theirs}.ffn_output", f"{ours}.mlp.down"),
        same(f"{theirs}.full_layer_layer_norm", f"{ours}.ln2"),
    )


FAMILY = Family("albert", ("albert",), build, weights)

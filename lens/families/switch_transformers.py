"""Switch Transformers (arXiv 2101.03961): T5's shape; some blocks send each token to one of several MLPs."""

from __future__ import annotations

from typing import Any

from lens.config import Experts, ModelConfig
from lens.families import _t5_like as like
from lens.family import Family
from lens.fields import Fields
from lens.weights import Rule, Table, same


def build(f: Fields) -> ModelConfig:
    f.only("router_bias", False)
    f.only("router_ignore_padding_tokens", False)
    f.ignore("router_jitter_noise", "router_z_loss_coef", "router_aux_loss_coef", "add_router_probs")
    f.ignore(
        "router_dtype", "router_type", "num_selected_experts", "expert_parallel", "batch_prioritized_routing"
    )
    tied = f.get("tie_word_embeddings", default=True) is not False
    n_source = f.get("num_layers")
    n_target = f.get("num_decoder_layers", default=n_source)
    act_fn = f.activation("dense_act_fn", default="relu")
    return like.build(
        f,
        scaled=tied,
        tied=tied,
        feed_forward=act_fn,
        source_experts=_experts(f, "encoder", n_source),
        target_experts=_experts(f, "decoder", n_target),
    )


def _experts(f: Fields, side: str, n_layers: int) -> Experts:
    """Every so many blocks are sparse, beginning with the second of a group."""
    n_sparse = f.get(f"num_sparse_{side}_layers", default=3)
    step = n_layers // n_sparse if n_sparse > 0 else n_layers
    f.only(f"{side}_sparse_step", step)
    sparse = [layer for layer in range(n_layers) if layer % step == 1 or step == 1] if step else []
    return Experts(
        n=f.get("num_experts", default=8),
        top_k=1,
        normalize=False,
        capacity=f.get("expert_capacity", default=64),
        layers=tuple(sparse),
    )


def weights(cfg: ModelConfig) -> Table:
    rules: list[Rule] = []
    parts: dict[str, Any] = {"encoder": (1, "encoder."), "decoder": (2, "")}
    for side, (last, prefix) in parts.items():
        theirs = f"{side}.block.{{l}}.layer.{last}.mlp"
        ours = f"{prefix}stack.blocks.{{l}}.mlp"
        rules.append(same(f"{theirs}.router.classifier", f"{ours}.router"))
        for a, b in (("wi", "up"), ("wo", "down")):
            rules.append(same(f"{theirs}.experts.expert_{{e}}.{a}", f"{ours}.experts.{{e}}.{b}"))
    return like.weights(cfg, "mlp", *rules)


FAMILY = Family("switch_transformers", ("switch_transformers",), build, weights)

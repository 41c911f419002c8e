"""Mixtral (arXiv 2401.04088): Mistral's shape with a mixture of experts in place of the MLP."""

from __future__ import annotations

from lens.config import Experts, ModelConfig
from lens.families import _llama_like as like
from lens.families._windows import everywhere
from lens.family import Family
from lens.fields import Fields
from lens.weights import Table, alias, fused, same


def build(f: Fields) -> ModelConfig:
    n_layers, n_ctx = like.sizes(f)
    f.ignore("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")  # training only
    experts = Experts(
        n=f.get("num_local_experts", "num_experts", default=8), top_k=f.get("num_experts_per_tok", default=2)
    )
    window = f.get("sliding_window", default=None)
    return like.build(
        f,
        n_kv_heads=8,
        theta=1_000_000.0,
        eps=1e-5,
        experts=experts,
        windows=everywhere(window, n_layers, n_ctx),
    )


def weights(cfg: ModelConfig) -> Table:
    saved, loaded, mlp = f"{like.LAYER}.block_sparse_moe", f"{like.LAYER}.mlp", f"{like.BLOCK}.mlp"
    expert = f"{mlp}.experts.{{e}}"
    rules = (
        *like.ends(),
        *like.pre_norms(),
        *like.attention(),
        same(f"{saved}.gate", f"{mlp}.router"),
        same(f"{saved}.experts.{{e}}.w1", f"{expert}.gate"),
        same(f"{saved}.experts.{{e}}.w2", f"{expert}.down"),
        same(f"{saved}.experts.{{e}}.w3", f"{expert}.up"),
        # the same in memory: all experts in one tensor
        alias(same(f"{loaded}.gate", f"{mlp}.router")),
        alias(
            fused(
                f"{loaded}.experts.gate_up_proj",
                f"{expert}.gate.weight",
                f"{expert}.up.weight",
                weight="e (n m) d -> n e m d",
            )
        ),
        alias(fused(f"{loaded}.experts.down_proj", f"{expert}.down.weight", weight="e d m -> e d m")),
    )
    return Table("mixtral", rules, prefix="model.")


FAMILY = Family("mixtral", ("mixtral",), build, weights)

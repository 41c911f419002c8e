"""What is asked of TransformerLens's `patching` and of ours, in the same words. Only torch and pandas are needed."""

from __future__ import annotations

from typing import Any

import calls
import torch
from torch import Tensor

MODELS = ("gpt2", "llama", "parallel", "attn_only")
BY_LAYER = (
    "resid_pre", "resid_mid", "attn_out", "mlp_out", "attn_head_out_by_pos", "attn_head_q_by_pos",
    "attn_head_k_by_pos", "attn_head_v_by_pos", "attn_head_pattern_by_pos", "attn_head_pattern_dest_src_pos",
    "attn_head_out_all_pos", "attn_head_q_all_pos", "attn_head_k_all_pos", "attn_head_v_all_pos",
    "attn_head_pattern_all_pos",
)  # fmt: skip
EVERY = ("attn_head_all_pos_every", "attn_head_by_pos_every", "block_every")


def corrupted() -> Tensor:
    """Ids like `calls.ids`, of which the first is the same."""
    ids = calls.ids()
    ids[:, 1:] = (ids[:, 1:] + 5) % calls.D_VOCAB
    ids[0, 3] = calls.ids()[0, 3]
    return ids


def metric(logits: Tensor) -> Tensor:
    """A number that all positions have a part in."""
    return (logits[:, -1, 5] - logits[:, -1, 9]).mean() + 0.3 * logits[:, :-1, 7].mean()


def add_half(activation: Tensor, index: Any, clean: Tensor) -> Tensor:
    """A patch of one's own: half of the way to the clean neurons from a position on."""
    _, pos = index
    activation[:, pos:] = (activation[:, pos:] + clean[:, pos:]) / 2
    return activation


def lacks(model: Any, name: str) -> bool:
    one_sum = model.cfg.attn_only or model.cfg.parallel_attn_mlp
    return (name == "resid_mid" and one_sum) or (name in ("mlp_out", "block_every") and model.cfg.attn_only)


def of_patching(model: Any, patching: Any) -> dict[str, Tensor]:
    """Every function, patches of one's own, and indices of one's own."""
    clean = model.run_with_cache(calls.ids())[1]
    given = (model, corrupted(), clean, metric)
    found = {
        name: getattr(patching, f"get_act_patch_{name}")(*given)
        for name in (*BY_LAYER, *EVERY)
        if not lacks(model, name)
    }
    for site in ("v", "q"):
        found[f"generic {site}"] = patching.generic_activation_patch(
            *given, patch_setter=add_half, activation_name=site, index_axis_names=("layer", "pos")
        )
    frame = patching.make_df_from_ranges((2, 3), ("layer", "head"))
    found["frame"] = torch.tensor(frame.to_numpy())
    found["rows"], _ = patching.generic_activation_patch(
        *given, patch_setter=patching.layer_head_vector_patch_setter, activation_name="z",
        index_df=frame.iloc[::-1].reset_index(drop=True), return_index_df=True,
    )  # fmt: skip
    if not model.cfg.attn_only:
        found["generic post"] = patching.generic_activation_patch(
            *given, patch_setter=add_half, activation_name="post", index_axis_names=("layer", "pos")
        )
    return found

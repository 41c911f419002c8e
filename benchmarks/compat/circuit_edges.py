"""auto-circuit 1.0.1 on a tiny model of ours: edge scores and circuits, compared with `circuits` and with plain
runs. See `__init__.py` for where it runs."""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version

import torch

import lens.compat

CONFIG = {
    "n_layers": 2, "d_model": 16, "n_ctx": 8, "d_head": 4, "n_heads": 4, "d_mlp": 32, "d_vocab": 20,
    "act_fn": "gelu", "normalization_type": "LN", "device": "cpu", "seed": 1, "initializer_range": 0.3,
    "use_attn_result": True, "use_split_qkv_input": True, "use_hook_mlp_in": True,
}  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore")
    lens.compat.install(quiet=True)
    from auto_circuit.data import PromptDataLoader, PromptDataset  # pyright: ignore[reportMissingImports]
    from auto_circuit.prune import run_circuits  # pyright: ignore[reportMissingImports]
    from auto_circuit.prune_algos.mask_gradient import (  # pyright: ignore[reportMissingImports]
        mask_gradient_prune_scores,
    )
    from auto_circuit.types import PatchType  # pyright: ignore[reportMissingImports]
    from auto_circuit.utils.graph_utils import patchable_model  # pyright: ignore[reportMissingImports]

    from circuits import Pairs, attribute

    model = lens.HookedTransformer(lens.HookedTransformerConfig(**CONFIG)).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(2)
    clean, corrupt = torch.randint(0, 20, (2, 4, 6), generator=generator)
    right, wrong = torch.randint(0, 20, (2, 4), generator=generator)
    ours = attribute(model, Pairs(clean, corrupt, right, wrong), "eap").values
    whole = model(clean)

    prompts = PromptDataset(list(clean), list(corrupt), list(right[:, None]), list(wrong[:, None]))
    data = PromptDataLoader(prompts, seq_len=None, diverge_idx=0, batch_size=4)
    tool = patchable_model(model, factorized=True, slice_output="last_seq", separate_qkv=True)
    wrapped = tool(clean)
    scores = mask_gradient_prune_scores(
        tool, data, None, grad_function="logit", answer_function="avg_diff", mask_val=0.0
    )
    theirs = torch.cat([x.flatten() for x in scores.values()]).abs()
    pairs = theirs[theirs > 0].sort().values, ours[ours != 0].abs().sort().values
    found = run_circuits(tool, data, [0, 20, tool.n_edges], scores, PatchType.TREE_PATCH)
    outputs = {count: next(iter(batches.values())) for count, batches in found.items()}
    told = {
        "auto-circuit": version("auto-circuit"),
        "edges": tool.n_edges,
        "largest score": float(theirs.max()),
        "greatest differences": {
            "wrapped model, from the model": float((wrapped - whole).abs().max()),
            "edge scores, from circuits.attribute (sorted by size)": float((pairs[0] - pairs[1]).abs().max()),
            "circuit of all edges, from the model": float((outputs[max(outputs)] - whole[:, -1]).abs().max()),
            "circuit of no edges, from the corrupted run": float(
                (outputs[min(outputs)] - lens_logits(CONFIG, corrupt)[:, -1]).abs().max()
            ),
        },
    }
    print(json.dumps(told, indent=1))


def lens_logits(config: dict[str, object], ids: torch.Tensor) -> torch.Tensor:
    """Logits of the same model, on which no tool has laid its hands."""
    model = lens.HookedTransformer(lens.HookedTransformerConfig(**config))  # pyright: ignore[reportArgumentType]
    return model(ids).detach()


if __name__ == "__main__":
    main()

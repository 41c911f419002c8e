"""Relevance propagation in place of gradients: a backward pass with other local rules (RelP, arXiv 2508.21258).

Forward values stay as they are (to rounding); only what flows back changes. For the modules of a
transformer the rules of layer-wise relevance propagation are:

1. Norms, LN-rule: the divisor is a constant, so a norm is a linear map (arXiv 2202.07304).
2. Attention, AH-rule: the pattern is a constant, so attention is linear in the values, and queries and keys
   get no relevance (arXiv 2202.07304). The weights of a router of experts are constants likewise.
3. Activation functions, identity rule: relevance passes unchanged, so the coefficient is f(x) / x in place of f'(x).
4. Products of two activations (gated MLPs), half rule: each factor gets half.
5. Linear maps, 0-rule: relevance in proportion to each input's share, which is gradient times input.

A coefficient times its activation is its relevance, and without biases the relevance of everything at one depth
sums to the metric, where the metric is linear in the logits and these have no soft cap. The metric and a soft
cap of the logits keep their gradients.

Letters: `...` any leading axes, m d_mlp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from lens.experts import MixtureOfExperts
from lens.mlp import MLP

if TYPE_CHECKING:
    from lens.block import Block
    from lens.model import Transformer
    from lens.taps import Edit


def relevance_edits(model: Transformer) -> dict[str, Edit]:
    """Edits of one run that make its backward pass one of relevance. Make new ones for each run."""
    edits: dict[str, Edit] = {}
    norms = [model.ln_final]
    for block in map(model.block, range(model.cfg.n_layers)):
        norms += [block.ln1, block.ln2, block.ln1_post, block.ln2_post]
        edits |= {block.attn.hook_q: torch.detach, block.attn.hook_k: torch.detach}
        if isinstance(block.mlp, MixtureOfExperts):
            edits[block.mlp.hook_expert_weights] = torch.detach
            if block.mlp.shared is not None:
                edits[block.mlp.hook_shared_gate] = torch.detach
        for mlp in _mlps(block):
            norms.append(mlp.ln)
            edits |= _mlp_edits(mlp)
    return edits | {norm.hook_scale: torch.detach for norm in norms if norm is not None}


def _mlps(block: Block) -> list[MLP]:
    if isinstance(block.mlp, MixtureOfExperts):
        every = [*block.mlp.experts, block.mlp.shared]
        return [expert for expert in every if isinstance(expert, MLP)]
    return [] if block.mlp is None else [block.mlp]


def _mlp_edits(mlp: MLP) -> dict[str, Edit]:
    """Rules 3 and 4."""
    noted: dict[str, Tensor] = {}

    def note(site: str) -> Edit:
        return lambda x: noted.update({site: x})

    def passed(post: Tensor) -> Tensor:
        before = noted.pop(mlp.hook_pre)
        active = before * slope(mlp, before.detach())
        if mlp.gate is None:
            return active
        linear = noted.pop(mlp.hook_pre_linear)
        return (active * linear.detach() + active.detach() * linear) / 2

    after = mlp.hook_post if mlp.ln is None else mlp.hook_mid
    edits = {mlp.hook_pre: note(mlp.hook_pre), after: passed}
    return edits if mlp.gate is None else edits | {mlp.hook_pre_linear: note(mlp.hook_pre_linear)}


def slope(mlp: MLP, x: Float[Tensor, "... m"]) -> Float[Tensor, "... m"]:
    """f(x) / x of the activation function; at zero its limit from above."""
    x = torch.where(x == 0, torch.finfo(x.dtype).tiny ** 0.5, x)
    return mlp.act(x) / x

"""A mixture of experts in place of the MLP: a router sends each position to its top-k experts (arXiv 2401.04088).

Letters: b batch, p position, d d_model, n experts, t top_k.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lens.config import StackConfig
from lens.mlp import MLP
from lens.taps import OFF, AnyTaps


class MixtureOfExperts(nn.Module):
    """Σ over the chosen experts of weight · expert(x), and where there is one what a shared expert says.

    Each expert sees only the tokens sent to it; its sites have one row per such token, in order of
    (batch, position), and do not fire when no token came. Where experts have a capacity, tokens that come too
    late get the weight zero.
    """

    def __init__(self, site: str, cfg: StackConfig) -> None:
        super().__init__()
        assert cfg.experts is not None
        self.cfg = cfg.experts
        self.router = nn.Linear(cfg.d_model, cfg.experts.n, bias=False)
        one = replace(cfg, d_mlp=cfg.experts.d_mlp or cfg.d_mlp)
        self.experts = nn.ModuleList(MLP(f"{site}.experts.{e}", one) for e in range(cfg.experts.n))
        self.shared = None
        if cfg.experts.shared:
            self.shared = MLP(f"{site}.shared", replace(cfg, d_mlp=cfg.experts.shared))
            self.shared_gate = nn.Linear(cfg.d_model, 1, bias=False)
        self.hook_router_logits = f"{site}.hook_router_logits"
        self.hook_expert_weights = f"{site}.hook_expert_weights"
        self.hook_expert_indices = f"{site}.hook_expert_indices"
        self.hook_shared_gate, self.hook_shared_out = f"{site}.hook_shared_gate", f"{site}.hook_shared_out"

    def forward(
        self,
        x: Float[Tensor, "b p d"],
        taps: AnyTaps = OFF,
        valid: Bool[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b p d"]:
        """`valid` is True where a token is real, over cached and new positions."""
        logits = taps(self.hook_router_logits, self.router(x))
        probabilities = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        weights, indices = probabilities.topk(self.cfg.top_k, -1)
        if self.cfg.normalize:
            weights = weights / weights.sum(-1, keepdim=True)
        weights = taps(self.hook_expert_weights, weights.to(x.dtype))
        indices = taps(self.hook_expert_indices, indices)
        if self.cfg.capacity is not None:
            weights = weights * self.fits(indices, valid)
        tokens, out = x.flatten(0, 1), torch.zeros_like(x).flatten(0, 1)
        for e, expert in enumerate(self.experts):
            chosen = (indices == e).flatten(0, 1)  # [b*p, t]
            rows = chosen.any(-1).nonzero()[:, 0]
            if len(rows):
                share = (weights.flatten(0, 1) * chosen).sum(-1, keepdim=True)[rows]
                out.index_add_(0, rows, expert(tokens[rows], taps) * share)
        out = out.view_as(x)
        return out if self.shared is None else out + self.of_all(x, self.shared, taps)

    def of_all(self, x: Float[Tensor, "b p d"], shared: MLP, taps: AnyTaps) -> Float[Tensor, "b p d"]:
        """What the MLP that all positions go through adds: σ(gate(x)) · shared(x) (arXiv 2407.10671, §2.2.2)."""
        gate = taps(self.hook_shared_gate, self.shared_gate(x).sigmoid())
        return taps(self.hook_shared_out, gate * shared(x, taps))

    def fits(
        self, indices: Int[Tensor, "b p t"], valid: Bool[Tensor, "b k"] | None
    ) -> Float[Tensor, "b p t"]:
        """One where a choice comes before its expert is full, zero where it comes too late (arXiv 2101.03961)."""
        sent = torch.nn.functional.one_hot(indices, self.cfg.n)  # [b, p, t, n]
        if valid is not None:
            sent = sent * valid[:, -indices.shape[1] :, None, None]
        assert self.cfg.capacity is not None
        return ((sent.cumsum(1) <= self.cfg.capacity) * sent).sum(-1).to(self.router.weight.dtype)

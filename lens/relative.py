"""Positions in the scores of attention: what the distance of a key from its query adds to their product.

- Buckets (T5, arXiv 1910.10683, §2.1): a number per head and bucket of distances.
- Disentangled (DeBERTa, arXiv 2006.03654, §3.1): queries also meet vectors of distances, and these meet keys.

Both hold one table for all layers of a stack. What follows from distances alone is made once per run.

Letters: b batch (1 where all rows agree), p query position, k key position, h head, e d_head, d d_model, n distances.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lens.config import Buckets, Disentangled, StackConfig
from lens.frame import Frame
from lens.norm import Norm


class BucketTable(nn.Module):
    """A bias per head for each bucket of distances."""

    def __init__(self, cfg: Buckets, n_heads: int, causal: bool) -> None:
        super().__init__()
        self.cfg, self.causal = cfg, causal
        self.table = nn.Embedding(cfg.n, n_heads)

    def bias(self, frame: Frame) -> Float[Tensor, "b h p k"]:
        """What is added to the scores of every layer."""
        return frame.once(self, lambda: self.table(self.buckets(frame.distances())).permute(0, 3, 1, 2))

    def buckets(self, distances: Int[Tensor, "b p k"]) -> Int[Tensor, "b p k"]:
        """Small distances have a bucket each, larger ones share buckets of growing width.

        A causal stack has buckets for keys in front of the query only; otherwise half of them are for each side.
        """
        n, offset = self.cfg.n, 0
        if self.causal:
            distances = (-distances).clamp(min=0)
        else:
            n //= 2
            offset = (distances > 0).long() * n
            distances = distances.abs()
        exact = n // 2
        growth = torch.log(distances.float() / exact) / math.log(self.cfg.max_distance / exact)
        wide = (exact + (growth * (n - exact)).long()).clamp(max=n - 1)
        return offset + torch.where(distances < exact, distances, wide)


class DistanceTable(nn.Module):
    """A vector per distance, which every layer projects for itself."""

    def __init__(self, cfg: Disentangled, stack: StackConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.table = nn.Embedding(2 * cfg.span, stack.d_model)
        self.ln = Norm("rel_ln", stack.d_model, "layer", stack.norm_eps) if cfg.norm else None

    def vectors(self, frame: Frame) -> Float[Tensor, "n d"]:
        """The table, normalised where the family does."""
        weight = self.table.weight
        return weight if self.ln is None else frame.once(self, lambda: self.ln(weight))  # type: ignore[misc]

    def index(self, frame: Frame) -> Int[Tensor, "b 1 p k"]:
        """Which row of the table each pair of positions reads."""
        return frame.once((self, "index"), lambda: self.rows(-frame.distances())[:, None])

    def rows(self, back: Int[Tensor, "b p k"]) -> Int[Tensor, "b p k"]:
        """Rows of the table for distances counted from the key to the query."""
        cfg = self.cfg
        if cfg.log_from is not None:
            middle = cfg.log_from
            far = back.abs().clamp(min=middle)
            growth = torch.log(far / middle) / torch.log(torch.tensor((cfg.max_distance - 1) / middle))
            logs = (torch.ceil(growth * (middle - 1)) + middle).long()
            back = torch.where(back.abs() <= middle, back, logs * back.sign())
        return (back + cfg.span).clamp(0, 2 * cfg.span - 1)

    def scores(
        self,
        q: Float[Tensor, "b h p e"],
        k: Float[Tensor, "b h k e"],
        pos_q: nn.Linear | None,
        pos_k: nn.Linear | None,
        frame: Frame,
    ) -> Float[Tensor, "b h p k"]:
        """Queries on distances and distances on keys, not yet scaled; a projection that is None adds nothing."""
        vectors, index = self.vectors(frame), self.index(frame)
        shape = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        out = q.new_zeros(shape)
        if pos_k is not None:
            out = out + (q @ self.by_head(pos_k(vectors), q).mT).gather(-1, index.expand(shape))
        if pos_q is not None:
            on_keys = k @ self.by_head(pos_q(vectors), q).mT
            out = out + on_keys.gather(-1, index.mT.expand(shape[0], shape[1], shape[3], shape[2])).mT
        return out

    @staticmethod
    def by_head(x: Float[Tensor, "n he"], like: Float[Tensor, "b h p e"]) -> Float[Tensor, "h n e"]:
        """Projected vectors, head by head."""
        return x.unflatten(-1, (like.shape[1], -1)).transpose(0, 1)


def table_of(cfg: StackConfig) -> BucketTable | DistanceTable | None:
    """The table that all layers of a stack share; None where scores know nothing of positions."""
    if isinstance(cfg.relative, Buckets):
        return BucketTable(cfg.relative, cfg.n_heads, cfg.causal)
    return None if cfg.relative is None else DistanceTable(cfg.relative, cfg)

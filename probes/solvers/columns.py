"""Logistic problems side by side: their scores, residuals and curvature along a line, one matrix product for all.

The objective of one problem, over weights w [k, r] and an intercept per output:

    f = Σ_i s_i ℓ(y_i, w a_i) + λ/2 |w|²        λ = 1 / C, as in scikit-learn's LogisticRegression

with ℓ the logistic loss (k = 1) or the cross-entropy of a softmax over k outputs. s is 1 for the rows that are fitted
and 0 for others (folds).

Letters: p problems, k outputs of each, n rows, w width of the design (features, the ones, zeros).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from probes.solvers.products import across, down


@dataclass
class Columns:
    """Problems with the same number of outputs, as one batch."""

    y: Tensor  # [p, k, n] 0 and 1
    s: Tensor  # [p, 1, n] 0 and 1
    penalty: Tensor  # [p, 1, w]: λ for features, 0 for the intercept, 1 for the zeros

    @property
    def k(self) -> int:
        return self.y.shape[1]

    @property
    def rows(self) -> Tensor:
        """How many rows each problem is fitted to, [p]."""
        return self.s.sum((1, 2), dtype=torch.float64)

    @property
    def shares(self) -> Tensor:
        """Each output's share of ones, [p, k]."""
        return (self.y * self.s).sum(2, dtype=torch.float64) / self.rows[:, None]

    def __getitem__(self, chosen: Tensor) -> Columns:
        return Columns(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def to(self, dtype: torch.dtype) -> Columns:
        """The same in another precision."""
        return Columns(*(getattr(self, field.name).to(dtype) for field in fields(self)))

    def start(self, intercept: int) -> Tensor:
        """Zero weights and the intercepts that give each output its share, [p, k, w]."""
        w = self.y.new_zeros(len(self.y), self.k, self.penalty.shape[2])
        share = self.shares.clamp(1e-9, 1 - 1e-9)
        w[:, :, intercept] = (share.logit() if self.k == 1 else share.log()).to(w.dtype)
        return w

    def probability(self, z: Tensor) -> Tensor:
        """Of each output at scores z [p, k, n]."""
        return torch.sigmoid(z) if self.k == 1 else torch.softmax(z, 1)

    def gradient(self, a: Tensor, w: Tensor, z: Tensor) -> Tensor:
        """Of the objective at weights w, whose scores are z, [p, k, w]."""
        residual = self.probability(z)
        residual -= self.y
        residual *= self.s
        return down(a, residual.flatten(0, 1)).view_as(w).addcmul_(self.penalty, w)

    def objective(self, w: Tensor, z: Tensor) -> Tensor:
        """f of each problem, float64 [p]."""
        if self.k == 1:
            loss = functional.softplus(z) - self.y * z
        else:
            loss = z.logsumexp(1, keepdim=True) - (self.y * z).sum(1, keepdim=True)
        fit = (loss * self.s).sum((1, 2), dtype=torch.float64)
        return fit + 0.5 * (self.penalty * w * w).sum((1, 2), dtype=torch.float64)

    def weights(self, z: Tensor) -> Tensor:
        """Each row's weight in the diagonal blocks of the Hessian, s p (1 − p), [p, k, n]."""
        p = self.probability(z)
        return (p - p * p) * self.s

    def line(self, w: Tensor, z: Tensor, d: Tensor, zd: Tensor, rounds: int = 10) -> Tensor:
        """The step t > 0 along d that minimises f(w + t d), [p]: Newton's method kept inside a bracket.

        f is convex, so the root of f' is bracketed by the largest t where f' < 0 and the smallest where f' > 0.
        """
        wd, dd = (self.penalty * w * d).sum((1, 2)), (self.penalty * d * d).sum((1, 2))
        t = torch.ones_like(wd)
        low, high = torch.zeros_like(t), torch.full_like(t, torch.inf)
        scaled = zd * self.s
        first = None
        for _ in range(rounds):
            p = self.probability(torch.addcmul(z, zd, t[:, None, None]))
            slope = ((p - self.y) * scaled).sum((1, 2)) + wd + t * dd
            p_zd = p * zd
            if self.k == 1:
                bend = ((scaled - scaled * p) * p_zd).sum((1, 2)) + dd
            else:
                bend = (p_zd * scaled).sum((1, 2)) - (p_zd.sum(1).square() * self.s[:, 0]).sum(1) + dd
            newton = slope / bend.clamp(min=1e-30)
            if float((newton / t).abs().max()) < (0.1 if first is None else 0.05):
                return t - newton
            first = slope
            low, high = torch.where(slope < 0, t, low), torch.where(slope < 0, high, t)
            middle = torch.where(low == 0, 0.1 * high, 0.5 * (low + high))
            step = torch.minimum(t - newton, 10 * t)
            t = torch.where((step > low) & (step < high), step, torch.where(high.isinf(), 4 * t, middle))
        return torch.where(low > 0, low, t)


def scores(a: Tensor, w: Tensor) -> Tensor:
    """z = w aᵀ, [p, k, n]."""
    return across(a, w.flatten(0, 1)).view(*w.shape[:2], len(a))

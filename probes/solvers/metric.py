"""Preconditioners of logistic problems: what L-BFGS takes for the inverse Hessian before it has seen any steps.

`SharedMetric`, for every problem from one eigendecomposition aᵀ a = V E Vᵀ: with all rows at the weight h of the class
shares, the Hessian is h V E Vᵀ + λ, and dividing by h E + λ in the rotated coordinates is its inverse.

`OwnMetric`, for groups of problems with the same labels and penalty (folds): the Hessian at where they stand,
Σ_i h_i a_i a_iᵀ + λ, from the rows that hold all but a few percent of the weight h_i = p_i (1 − p_i). Where classes
come apart few rows do, and it costs little.

With several outputs both take the diagonal blocks of the softmax's Hessian.

Letters: p problems, k outputs, n rows, w width of the design, r features, g groups.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from probes.solvers.columns import Columns
from probes.solvers.design import Design
from probes.solvers.products import gram

KEPT = 0.985  # share of the weight that the rows of an own metric hold
JITTER = 3e-7  # of the largest diagonal element: what float32 products are sure of


@runtime_checkable
class Metric(Protocol):
    def __call__(self, g: Tensor) -> Tensor:
        """Gradients [p, k, w] to steps."""
        ...

    def __getitem__(self, chosen: Tensor) -> Metric:
        """That of some of the problems."""
        ...


class SharedMetric:
    """The inverse of h aᵀ a + λ, by one eigendecomposition for all problems."""

    def __init__(self, rotation: Tensor, inverse: Tensor) -> None:
        self.rotation, self.inverse = rotation, inverse  # [w, w], [p, k, w]

    @classmethod
    def of(cls, design: Design, columns: Columns, eigen: tuple[Tensor, Tensor]) -> SharedMetric:
        values, vectors = eigen
        width, r = design.width, design.r
        rotation = torch.eye(width, device=vectors.device)
        rotation[:r, :r] = vectors
        spectrum = torch.zeros(width, dtype=torch.float64, device=vectors.device)
        spectrum[:r] = values
        spectrum[r] = design.n_fitted
        share = columns.shares.clamp(1e-3, 1 - 1e-3)
        h = share * (1 - share) * (columns.rows / design.n_fitted)[:, None]
        inverse = 1 / (h[:, :, None] * spectrum + columns.penalty)
        return cls(rotation, inverse.to(columns.y.dtype))

    def __call__(self, g: Tensor) -> Tensor:
        flat = (g.flatten(0, 1) @ self.rotation).view_as(g)
        return ((flat * self.inverse).flatten(0, 1) @ self.rotation.T).view_as(g)

    def __getitem__(self, chosen: Tensor) -> SharedMetric:
        return SharedMetric(self.rotation, self.inverse[chosen])


class OwnMetric:
    """The inverse of the Hessian of each group of problems, at where it stands."""

    def __init__(self, factors: list[list[Tensor]], group: Tensor) -> None:
        self.factors, self.group = factors, group  # g × k × [w, w], [p]

    @classmethod
    def of(cls, design: Design, columns: Columns, z: Tensor, group: Tensor) -> OwnMetric:
        """At scores z [p, k, n], for problems of which `group` [p] tells the group."""
        weights = columns.weights(z)
        found, member = group.unique(return_inverse=True)
        factors = []
        for g in range(len(found)):
            own = member == g
            penalty = columns.penalty[own][0, 0]
            factors.append([_factor(design, h, penalty) for h in weights[own].mean(0)])
        return cls(factors, member)

    def __call__(self, g: Tensor) -> Tensor:
        if len(self.factors) == 1:
            return torch.stack([_solve(factor, g[:, j]) for j, factor in enumerate(self.factors[0])], 1)
        out = torch.empty_like(g)
        for i, factors in enumerate(self.factors):
            own = self.group == i
            for j, factor in enumerate(factors):
                out[own, j] = _solve(factor, g[own, j])
        return out

    def __getitem__(self, chosen: Tensor) -> OwnMetric:
        return OwnMetric(self.factors, self.group[chosen])


def _solve(factor: Tensor, g: Tensor) -> Tensor:
    return torch.cholesky_solve(g.T, factor).T


def _factor(design: Design, h: Tensor, penalty: Tensor) -> Tensor:
    """Cholesky factor of Σ_i h_i a_i a_iᵀ + λ, [w, w], from the rows that matter."""
    if bool((h == h[0]).all()):
        hessian = gram(design.features).double() * h[0]
    else:
        ordered, row = h.sort(descending=True)
        total = ordered.sum()
        kept = int((ordered.cumsum(0) < KEPT * total).sum()) + 1
        weight = ordered[:kept] * (total / ordered[:kept].sum().clamp(min=1e-30))
        part = design.features[row[:kept]]
        part *= weight.sqrt_()[:, None]
        hessian = gram(part).double()
    diagonal = hessian.diagonal()
    diagonal += penalty + JITTER * diagonal.max() + 1e-12
    factor, failed = torch.linalg.cholesky_ex(hessian)
    while bool(failed):
        diagonal += 1e-6 * diagonal.max()
        factor, failed = torch.linalg.cholesky_ex(hessian)
    return factor.to(h.dtype)

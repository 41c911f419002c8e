"""The features that all probes of one site share: standardised once, with one Gram matrix and eigendecomposition.

1. Mean and standard deviation of each feature over the rows that any problem is fitted to; a feature that does not
   vary there becomes 0 and gets no weight.
2. a = (x − mean) / deviation, and a column of ones for the intercept, padded with zeros to a multiple of 16.
3. Where d > n the solutions of all L2 problems lie in the span of the rows (representer theorem): with
   a aᵀ = U S² Uᵀ the features become U S [n, r], and weights w in these stand for aᵀ U S⁻¹ w.
4. Gram matrices and their eigendecompositions are made when first asked for, in float64 or, for preconditioners,
   from float32 products.

Letters: n rows, d features of the activations, r features that are solved for, k outputs.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from probes.solvers.products import gram

CONSTANT = 1e-12  # a standard deviation below this share of the mean is rounding
HARDLY = 1e-3  # below this share of the mean a column may be constant and its spread rounding
RANK = 1e-13  # eigenvalues below this share of the largest are rounding
PAD = 16
BLOCK = 8192  # rows that are held in float64 at a time


class Design:
    """Standardised features of the rows x [n, d], in float32 and, block by block, in float64.

    Args:
        x: activations, already on the device that computes; float32 or float64.
        fitted: mask [n] of the rows that any problem is fitted to, None: all.
        intercept: whether there is a column of ones; without it, features are not centred either.
    """

    def __init__(self, x: Tensor, fitted: Tensor | None = None, intercept: bool = True) -> None:
        self.x = x
        self.fitted, self.intercept = fitted, intercept
        used = x if fitted is None else x[fitted]
        mean = used.mean(0)
        deviation = used.sub(mean).square_().mean(0).sqrt_()
        mean, deviation = mean.double(), deviation.double()
        constant = deviation <= CONSTANT * mean.abs()
        hardly = (
            deviation <= HARDLY * mean.abs()
        )  # rounding may look like this: these are compared value by value
        constant[hardly] |= (used[:, hardly] == used[:1, hardly]).all(0)
        if not intercept:
            mean = torch.zeros_like(mean)
        self.mean = mean
        self.inverse_scale = torch.where(constant, 0.0, 1 / torch.where(constant, 1.0, deviation))
        self.basis: Tensor | None = None  # [d, r] where d > n
        self._reduced: Tensor | None = None  # float64 [n, r] where d > n
        if used.shape[1] > used.shape[0]:
            self._to_dual(fitted)
        self.r = x.shape[1] if self.basis is None else self.basis.shape[1]
        self.width = -(-(self.r + 1) // PAD) * PAD

    def _to_dual(self, fitted: Tensor | None) -> None:
        a = self._standardised(slice(None))
        used = a if fitted is None else a[fitted]
        values, vectors = torch.linalg.eigh(used @ used.T)
        kept = values > RANK * values[-1].clamp(min=1e-300)
        singular = values[kept].sqrt()
        basis = used.T @ (vectors[:, kept] / singular)
        self.basis, self._singular, self._reduced = basis, singular, a @ basis

    def _standardised(self, rows: slice) -> Tensor:
        return (self.x[rows].double() - self.mean) * self.inverse_scale

    @property
    def n(self) -> int:
        return self.x.shape[0]

    @property
    def n_fitted(self) -> int:
        """Rows that any problem is fitted to."""
        return self.n if self.fitted is None else int(self.fitted.sum())

    @property
    def has_eigen(self) -> bool:
        """Whether an eigendecomposition has been made already."""
        return self.basis is not None or not {"rough_eigen", "exact_eigen"}.isdisjoint(self.__dict__)

    @cached_property
    def features(self) -> Tensor:
        """float32 [n, width]: r features, the ones, zeros."""
        out = torch.zeros(self.n, self.width, dtype=torch.float32, device=self.x.device)
        if self._reduced is not None:
            out[:, : self.r] = self._reduced
        else:
            torch.sub(self.x, self.mean.to(self.x.dtype), out=out[:, : self.r])
            out[:, : self.r] *= self.inverse_scale.float()
        if self.intercept:
            out[:, self.r] = 1
        return out

    def block(self, rows: slice) -> Tensor:
        """The same features in float64, [rows, width]. Not to be changed: a design of one block keeps it."""
        if rows.start == 0 and rows.stop >= self.n:
            return self._only_block
        return self._exact(rows)

    @cached_property
    def _only_block(self) -> Tensor:
        return self._exact(slice(None))

    def _exact(self, rows: slice) -> Tensor:
        source = self.x if self._reduced is None else self._reduced
        part = source[rows]
        out = torch.zeros(len(part), self.width, dtype=torch.float64, device=part.device)
        if self._reduced is None:
            torch.sub(part, self.mean, out=out[:, : self.r])
            out[:, : self.r] *= self.inverse_scale
        else:
            out[:, : self.r] = part
        if self.intercept:
            out[:, self.r] = 1
        return out

    def blocks(self) -> list[slice]:
        """Slices of rows that `block` is asked for in turn."""
        return [slice(i, min(i + BLOCK, self.n)) for i in range(0, self.n, BLOCK)]

    @cached_property
    def rough_eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues [r] and vectors [r, r] of the Gram matrix from float32 products, for preconditioners."""
        if self.basis is not None or "exact_eigen" in self.__dict__:
            return self.exact_eigen
        a = self.features[:, : self.r]
        return eigen(gram(a if self.fitted is None else a[self.fitted]).double())

    @cached_property
    def exact_eigen(self) -> tuple[Tensor, Tensor]:
        """The same from float64 products."""
        if self.basis is not None:
            return self._singular.square(), torch.eye(self.r, dtype=torch.float64, device=self.x.device)
        total = torch.zeros(self.r, self.r, dtype=torch.float64, device=self.x.device)
        for rows in self.blocks():
            a = self.block(rows)[:, : self.r]
            total += gram(a if self.fitted is None else a[self.fitted[rows]])
        return eigen(total)

    def unscaled(self, points: Tensor) -> Tensor:
        """Points [k, r] among the features as differences [k, d] from the mean, in the units of x."""
        points = points if self.basis is None else points @ self.basis.T
        return torch.where(self.inverse_scale > 0, points / self.inverse_scale, 0.0)

    def unpack(self, weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Weights [k, width] of the features as coefficients [k, d] and intercepts [k] in the units of x."""
        weights = weights.double()
        w, intercept = weights[:, : self.r], weights[:, self.r]
        if self.basis is not None:
            w = w @ self.basis.T
        coef = w * self.inverse_scale
        return coef.cpu().numpy(), (intercept - coef @ self.mean).cpu().numpy()


def eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, none below zero, and eigenvectors of a Gram matrix."""
    if matrix.device.type == "cpu":
        values, vectors = (torch.from_numpy(found) for found in np.linalg.eigh(matrix.numpy()))
    else:
        values, vectors = torch.linalg.eigh(matrix)
    return values.clamp(min=0), vectors

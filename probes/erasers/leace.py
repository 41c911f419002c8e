"""Least-squares concept erasure (Belrose et al. 2023, arXiv 2306.03819, Theorem 4.3).

Among all affine maps after which no linear probe does better than a constant, the one that moves the activations
least, in the mean square of every norm at once:

    r(x) = x − W⁺ P W (x − E x)

1. Σ = cov(x, x) and Γ = cov(x, z) are gathered batch by batch; z is made of uncorrelated parts of variance one.
2. W = (Σ^½)⁺ whitens; directions in which the activations do not vary stay out of it.
3. P projects orthogonally onto the columns of W Γ. Their singular values are the canonical correlations of the concept
   with the activations.

A probe that cannot beat a constant is one whose features have no covariance with the concept (Theorem 3.1). This is
exact on the rows fitted; on other rows it holds as far as their covariance Γ is the same. With fewer rows than
features Σ is singular, and `shrinkage` keeps the map tame on other rows: the erasure on the fitted rows stays exact,
as W may be any invertible matrix for that; only the least movement is given up.

Letters: d width, c parts of the concept, k rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.eraser import Eraser, Method
from probes.moments import Moments

NOISE = 1e-10
"""Canonical correlations below this are rounding: there is nothing to erase in these directions."""


class Leace:
    """The fitter.

    Args:
        shrinkage: between 0 and 1, how far Σ is drawn towards its mean eigenvalue times the identity.

    Raises:
        ValueError: shrinkage out of range.
    """

    def __init__(self, shrinkage: float = 0.0) -> None:
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage is {shrinkage}; it is between 0 and 1")
        self.shrinkage, self.moments = shrinkage, Moments()

    def update(self, x: Tensor, z: Tensor) -> None:
        """Add rows x [n, d] with their concept z [n, c] (see `probes.eraser.concept`)."""
        self.moments.update(x, z)

    def eraser(self, site: str | None = None) -> Eraser:
        """The eraser of all rows so far.

        Raises:
            ValueError: fewer than two rows, or a concept that is the same in all of them.
        """
        moments = self.moments
        gamma = moments.standard_xz()  # [d, c]
        values, vectors = torch.linalg.eigh(self._shrunk(moments.xx))
        varies = values > torch.finfo(values.dtype).eps * len(values) * values[-1].clamp(min=0)
        sd, vectors = values[varies].sqrt(), vectors[:, varies]
        correlated = (vectors.T @ gamma) / sd[:, None]  # W Γ, in the coordinates of the eigenvectors
        basis, correlations, _ = torch.linalg.svd(correlated, full_matrices=False)
        basis = basis[:, correlations > NOISE]
        record = {
            "rows": moments.n,
            "shrinkage": self.shrinkage,
            "covariance_rank": int(varies.sum()),
            "canonical_correlations": correlations[correlations > NOISE].tolist(),
        }
        left = vectors @ (sd[:, None] * basis)
        right = (basis / sd[:, None]).T @ vectors.T
        return Eraser("leace", left, right, moments.mean_x, site, record)

    def _shrunk(self, covariance: Tensor) -> Tensor:
        mean = covariance.diagonal().mean()
        shrunk = covariance * (1 - self.shrinkage)
        shrunk.diagonal().add_(self.shrinkage * mean)
        return shrunk


ERASER = Method("least-squares concept erasure: no linear probe is left, the least is moved", Leace)

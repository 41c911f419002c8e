"""Least-squares concept erasure (Belrose et al. 2023, arXiv 2306.03819, Theorem 4.3).

Among all affine maps after which no linear probe does better than a constant, the one that moves the activations
least, in the mean square of every norm at once:

    r(x) = x − W⁺ P W (x − E x)

1. Σ = cov(x, x) and Γ = cov(x, z) are gathered batch by batch; z is made of uncorrelated parts of variance one.
2. W = (Σ^½)⁺ whitens; directions in which the activations do not vary stay out of it.
3. P projects orthogonally onto the columns of W Γ. Their singular values are the canonical correlations of the concept
   with the activations (where W whitens these).

A probe that cannot beat a constant is one whose features have no covariance with the concept (Theorem 3.1). This is
exact on the rows fitted; on other rows it holds as far as their covariance Γ is the same. With fewer rows than
features Σ is singular, and `shrinkage` keeps the map tame on other rows: the erasure on the fitted rows stays exact,
as W may be any invertible matrix for that; only the least movement is given up.

What is moved least is what the eraser was fitted to. An eraser that was fitted to the last tokens of statements may
move ordinary text a great deal: a direction that hardly varies there can vary much elsewhere. `background` holds
activations that it is going to act on; then Σ and the centre are theirs, Γ stays that of the labelled rows, and among
all maps that guard these rows it moves the background least. (Σ gets a thousandth of the rows' own, so that W is
invertible where the rows are.)

Letters: n row, d width, c parts of the concept, k rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.eraser import Eraser, Method
from probes.moments import Moments

NOISE = 1e-10
"""Canonical correlations below this are rounding: there is nothing to erase in these directions."""
OWN_SHARE = 1e-3
"""Of the labelled rows' covariance in Σ, where there is a background."""


class Leace:
    """The fitter.

    Args:
        shrinkage: between 0 and 1, how far Σ is drawn towards its mean eigenvalue times the identity.
        background: further activations [n, d], without labels, that are to be moved least.

    Raises:
        ValueError: shrinkage out of range, or a background of fewer than two rows or that is not finite.
    """

    def __init__(self, shrinkage: float = 0.0, background: Tensor | None = None) -> None:
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage is {shrinkage}; it is between 0 and 1")
        self.shrinkage, self.moments = shrinkage, Moments()
        self.background = Moments() if background is not None else None
        if background is not None and self.background is not None:
            if len(background) < 2:
                raise ValueError(f"the background has {len(background)} rows; it needs two or more")
            self.background.update(background, background.new_zeros(len(background), 1))

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
        sigma, centre = self._whitened(moments)
        values, vectors = torch.linalg.eigh(self._shrunk(sigma))
        varies = values > torch.finfo(values.dtype).eps * len(values) * values[-1].clamp(min=0)
        sd, vectors = values[varies].sqrt(), vectors[:, varies]
        correlated = (vectors.T @ gamma) / sd[:, None]  # W Γ, in the coordinates of the eigenvectors
        basis, correlations, _ = torch.linalg.svd(correlated, full_matrices=False)
        basis = basis[:, correlations > NOISE]
        record = {
            "rows": moments.n,
            "background": 0 if self.background is None else self.background.n,
            "shrinkage": self.shrinkage,
            "covariance_rank": int(varies.sum()),
            "correlations": correlations[correlations > NOISE].tolist(),
        }
        left = vectors @ (sd[:, None] * basis)
        right = (basis / sd[:, None]).T @ vectors.T
        return Eraser("leace", left, right, centre, site, record)

    def _whitened(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """Σ and the centre."""
        if self.background is None:
            return moments.xx, moments.mean_x
        if len(self.background.mean_x) != len(moments.mean_x):
            raise ValueError(
                f"the background is {len(self.background.mean_x)} wide and the activations {len(moments.mean_x)}"
            )
        sigma = self.background.xx.to(moments.mean_x.device) + OWN_SHARE * moments.xx
        return sigma, self.background.mean_x.to(moments.mean_x.device)

    def _shrunk(self, covariance: Tensor) -> Tensor:
        mean = covariance.diagonal().mean()
        shrunk = covariance * (1 - self.shrinkage)
        shrunk.diagonal().add_(self.shrinkage * mean)
        return shrunk


ERASER = Method("least-squares concept erasure: no linear probe is left, the least is moved", Leace)

"""Project the class means together: what is taken out is the plane through the means of the classes.

1. The covariance of x with the concept, Γ = cov(x, z); with one-hot classes its columns span the differences of the
   classes' means from the overall mean (for two classes: the difference of means).
2. The eraser projects orthogonally onto the complement of that span, around the overall mean.

Afterwards all classes have the same mean, so no linear probe does better than a constant; it moves the activations
more than LEACE does (Belrose et al. 2023, arXiv 2306.03819, §3). With values this is spectral attribute removal
(Shao et al. 2023, arXiv 2203.07893) of all directions of the covariance.

Letters: d width, c parts of the concept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.eraser import Eraser, Method
from probes.moments import Moments

NOISE = 1e-10


class MeanProjection:
    """The fitter."""

    def __init__(self) -> None:
        self.moments = Moments()

    def update(self, x: Tensor, z: Tensor) -> None:
        """Add rows x [n, d] with their concept z [n, c]."""
        self.moments.update(x, z)

    def eraser(self, site: str | None = None) -> Eraser:
        """The eraser of all rows so far.

        Raises:
            ValueError: fewer than two rows, or a concept that is the same in all of them.
        """
        gamma = self.moments.standard_xz()
        basis, size, _ = torch.linalg.svd(gamma, full_matrices=False)
        spread = (
            self.moments.xx.diagonal().sum().sqrt()
        )  # no covariance with a part of variance one is larger
        basis = basis[:, size > NOISE * spread]
        return Eraser.orthogonal(
            "mean-projection", basis, self.moments.mean_x, site, {"rows": self.moments.n}
        )


ERASER = Method("orthogonal projection that gives all classes the same mean", MeanProjection)

"""A random subspace of a given rank: the control of every erasure.

1. A basis of k directions is drawn uniformly among all subspaces: the Q of a Gaussian matrix.
2. The eraser projects orthogonally onto its complement, around the mean of the rows, as the others do.

It knows the activations' mean and nothing of the concept.

Letters: d width, k rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.eraser import Eraser, Method
from probes.moments import check_rows, double


class Random:
    """The fitter.

    Args:
        rank: how many dimensions are taken out.
        seed: of the draw; the same seed gives subspaces that contain each other as the rank grows.

    Raises:
        ValueError: rank below 0.
    """

    def __init__(self, rank: int = 1, seed: int = 0) -> None:
        if rank < 0:
            raise ValueError(f"rank is {rank}; it must be 0 or more")
        self.rank, self.seed, self.n = rank, seed, 0

    def update(self, x: Tensor, z: Tensor) -> None:
        """Add rows x [n, d]; the concept is not looked at."""
        check_rows(x, z)
        self.sum = double(x).sum(0) + (self.sum if self.n else 0)
        self.n += len(x)

    def eraser(self, site: str | None = None) -> Eraser:
        """The eraser of all rows so far.

        Raises:
            ValueError: no rows, or a rank above the width of the activations.
        """
        if not self.n:
            raise ValueError("an eraser is fitted to one row or more")
        return random_eraser(self.sum / self.n, self.rank, self.seed, site)


def random_eraser(centre: Tensor, rank: int, seed: int = 0, site: str | None = None) -> Eraser:
    """One around a given centre [d].

    Raises:
        ValueError: rank above d.
    """
    d = len(centre)
    if rank > d:
        raise ValueError(f"rank is {rank} and the activations have {d} dimensions")
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(d, d, generator=generator, dtype=torch.float64)[:, :rank]
    basis = torch.linalg.qr(gaussian)[0].to(centre.device)
    return Eraser.orthogonal("random", basis, double(centre), site, {"seed": seed})


ERASER = Method("a random subspace of a given rank, the control", Random)

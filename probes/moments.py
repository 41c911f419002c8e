"""Running means and covariances of activations with a concept, so that rows need not be held.

1. A batch is centred on its own mean; its sums of products are exact to float64 whatever the offset of the data.
2. Two sets are joined by Chan, Golub & LeVeque (1979): S = S₁ + S₂ + (m₂ − m₁)(m₂ − m₁)ᵀ n₁n₂ / (n₁ + n₂).

Letters: n row, d width of the activation, c columns of the concept.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def double(x: Tensor) -> Tensor:
    """In float64, without a graph; on the CPU where the device has no float64."""
    x = x.detach()
    return (x.cpu() if x.device.type == "mps" else x).double()


def check_rows(x: Float[Tensor, "n d"], z: Float[Tensor, "m c"]) -> None:
    """Raise unless the rows of x and z belong together and are finite.

    Raises:
        ValueError: one line that says which row of what is wrong.
    """
    if len(x) != len(z):
        raise ValueError(f"there are {len(x)} activations and {len(z)} values of the concept")
    for what, t in (("activation", x), ("concept", z)):
        if not bool((finite := t.isfinite().all(1)).all()):
            row = int((~finite).nonzero()[0])
            kind = "NaN" if bool(t[row].isnan().any()) else "infinite"
            raise ValueError(f"the {what} of row {row} is {kind}")


class Moments:
    """Means and covariances (divided by n) of x [n, d] and of x with z [n, c], in float64, batch by batch."""

    def __init__(self) -> None:
        self.n = 0

    def update(self, x: Float[Tensor, "n d"], z: Float[Tensor, "m c"]) -> None:
        """Add rows.

        Raises:
            ValueError: other widths than the rows before, another number of rows of z than of x, or not finite.
        """
        x, z = double(x), double(z)
        z = z.to(x.device)
        check_rows(x, z)
        if self.n and (x.shape[1], z.shape[1]) != (len(self.mean_x), len(self.mean_z)):
            raise ValueError(
                f"these rows are {x.shape[1]} wide with a concept of {z.shape[1]}; "
                f"the rows before were {len(self.mean_x)} wide with a concept of {len(self.mean_z)}"
            )
        if not len(x):
            return
        mean_x, mean_z, k = x.mean(0), z.mean(0), len(x)
        x, z = x - mean_x, z - mean_z
        sums = x.T @ x, x.T @ z, z.T @ z
        if not self.n:
            self.mean_x, self.mean_z, self.n = mean_x, mean_z, k
            self._xx, self._xz, self._zz = sums
            return
        dx, dz, weight = mean_x - self.mean_x, mean_z - self.mean_z, self.n * k / (self.n + k)
        self._xx += sums[0] + weight * dx.outer(dx)
        self._xz += sums[1] + weight * dx.outer(dz)
        self._zz += sums[2] + weight * dz.outer(dz)
        self.n += k
        self.mean_x, self.mean_z = self.mean_x + dx * (k / self.n), self.mean_z + dz * (k / self.n)

    @property
    def xx(self) -> Float[Tensor, "d d"]:
        """Covariance of x."""
        return self._xx / self.n

    @property
    def xz(self) -> Float[Tensor, "d c"]:
        """Covariance of x with z."""
        return self._xz / self.n

    @property
    def zz(self) -> Float[Tensor, "c c"]:
        """Covariance of z."""
        return self._zz / self.n

    def standard_xz(self) -> Float[Tensor, "d c"]:
        """Covariance of x with the concept's uncorrelated parts of variance one (one-hot of c classes: c − 1 parts).

        Raises:
            ValueError: fewer than two rows, or the concept is the same in all of them.
        """
        if self.n < 2:
            raise ValueError(f"a concept can be erased from two rows or more, not from {self.n}")
        variance = self.zz.diagonal()
        varies = variance > 1e-28 * self.mean_z.pow(2)  # less is rounding of the mean
        if not bool(varies.any()):
            raise ValueError(f"the concept is the same in all {self.n} rows: there is nothing to erase")
        scale = variance[varies].sqrt()
        values, vectors = torch.linalg.eigh(self.zz[varies][:, varies] / scale.outer(scale))
        kept = values > 1e-12 * values[-1]
        return (self.xz[:, varies] / scale) @ (vectors[:, kept] / values[kept].sqrt())

"""Whether activations are numbers."""

from __future__ import annotations

from torch import Tensor


def check_finite(x: Tensor, what: str = "activations") -> None:
    """Raise a ValueError that names the first row of x [n, …] that has a NaN or an infinity."""
    if bool(x.sum().isfinite()):  # a NaN or an infinity survives any sum
        return
    finite = x.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        kind = "NaN" if bool(x[row].isnan().any()) else "an infinity"
        raise ValueError(f"row {row} of the {what} has {kind}")

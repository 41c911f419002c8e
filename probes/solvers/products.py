"""Products with the features, by whichever library is quick at their shape.

On the CPU NumPy's library computes only half of a symmetric product, and is the quicker one for a single row. All else
is PyTorch's.

Letters: n rows, w width of the design, j rows of the other factor.
"""

from __future__ import annotations

import torch
from torch import Tensor


def across(a: Tensor, w: Tensor) -> Tensor:
    """w aᵀ, [j, n], for features a [n, w] and weights w [j, w]."""
    if len(w) == 1 and a.device.type == "cpu":
        return torch.from_numpy(w.numpy() @ a.numpy().T)
    return w @ a.T


def down(a: Tensor, r: Tensor) -> Tensor:
    """r a, [j, w], for features a [n, w] and residuals r [j, n]."""
    if len(r) == 1 and a.device.type == "cpu":
        return torch.from_numpy(r.numpy() @ a.numpy())
    return r @ a


def gram(a: Tensor) -> Tensor:
    """aᵀ a, [w, w]."""
    if a.device.type == "cpu":
        values = a.numpy()
        return torch.from_numpy(values.T @ values)
    return a.T @ a

"""Correlations of many rows at once.

Letters: b row, i item.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def pearson(x: Float[Tensor, "b i"], y: Float[Tensor, "b i"]) -> Float[Tensor, " b"]:
    """Correlation of each row; NaN where one side does not vary."""
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))


def spearman(x: Float[Tensor, "b i"], y: Float[Tensor, "b i"]) -> Float[Tensor, " b"]:
    """Rank correlation of each row; equal values share the mean of their ranks. NaN where one side does not vary."""
    return pearson(ranks(x), ranks(y))


def ranks(x: Float[Tensor, "b i"]) -> Float[Tensor, "b i"]:
    """Ranks within each row, from 1; equal values share the mean of theirs."""
    x = x.contiguous()
    in_order = x.sort(1).values
    before, through = (torch.searchsorted(in_order, x, right=right) for right in (False, True))
    return (before + through + 1).double() / 2

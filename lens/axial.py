"""Positions as places of a map: one vector for the row and one for the column, side by side (arXiv 1912.12180).

Letters: n rows or columns, x entries; `...` any axes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lens.recurrent import Weight

Axes = tuple[tuple[int, int], tuple[int, int]]


class AxialPositions(nn.Module):
    """Position i is row i // columns and column i % columns. `axes` are the sizes of both tables."""

    def __init__(self, axes: Axes) -> None:
        super().__init__()
        self.rows, self.columns = (Weight(*axis) for axis in axes)

    def forward(self, positions: Int[Tensor, ...]) -> Float[Tensor, "... x"]:
        n = len(self.columns.weight)
        return torch.cat([self.rows.weight[positions // n], self.columns.weight[positions % n]], -1)

    @property
    def weight(self) -> Float[Tensor, "n x"]:
        """The table that this stands for."""
        n = len(self.rows.weight) * len(self.columns.weight)
        return self(torch.arange(n, device=self.rows.weight.device))


def shapes(axes: Axes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the two tables."""
    return {"rows.weight": axes[0], "columns.weight": axes[1]}

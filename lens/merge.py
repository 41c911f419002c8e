"""Two by two neighbouring positions of a map become one, of another width (Swin, arXiv 2103.14030, §3.1).

Letters: b batch, p position, m merged position, y row, x column, d d_model, w the width after it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lens.norm import Norm
from lens.taps import OFF, AnyTaps


class Merge(nn.Module):
    """The four side by side, a norm, and a linear map; a map of odd sides gets a row or column of zeros."""

    def __init__(self, site: str, grid: tuple[int, int], d_model: int, d_out: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.grid = grid
        self.ln = Norm(f"{site}.merge.ln", 4 * d_model, "layer", eps)
        self.linear = nn.Linear(4 * d_model, d_out, bias=False)
        self.hook_merged = f"{site}.hook_merged"

    def forward(self, x: Float[Tensor, "b p d"], taps: AnyTaps = OFF) -> Float[Tensor, "b m w"]:
        rows, columns = self.grid
        x = F.pad(x.unflatten(1, self.grid), (0, 0, 0, columns % 2, 0, rows % 2))
        quarters = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]  # above, below, then one to the right
        return taps(self.hook_merged, self.linear(self.ln(torch.cat(quarters, -1).flatten(1, 2), taps)))

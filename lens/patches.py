"""An image to a row of positions (ViT, arXiv 2010.11929, §3.1).

Letters: b batch, c channel, y row, x column, p position, d d_model.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lens.config import PatchConfig


class Patches(nn.Module):
    """A linear map of every patch, in reading order, behind the class token where there is one."""

    def __init__(self, cfg: PatchConfig, d_model: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(cfg.n_channels, d_model, cfg.patch_size, cfg.patch_size, bias=cfg.bias)
        self.class_token = nn.Embedding(1, d_model) if cfg.class_token else None

    def forward(self, image: Float[Tensor, "b c y x"]) -> Float[Tensor, "b p d"]:
        x = self.linear(image).flatten(2).mT
        if self.class_token is None:
            return x
        return torch.cat([self.class_token.weight.expand(len(x), 1, -1), x], 1)

"""Token ids to the first residual stream.

Letters: b batch, p position, d d_model.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lens.config import EmbedConfig
from lens.frame import Frame
from lens.taps import OFF, AnyTaps


class Embed(nn.Module):
    """Token embedding (scaled, projected where factorised) plus learned positions where there are any."""

    hook_embed = "hook_embed"
    hook_pos_embed = "hook_pos_embed"

    def __init__(self, cfg: EmbedConfig, d_model: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.tokens = nn.Embedding(cfg.d_vocab, cfg.d_embed)
        self.project = nn.Linear(cfg.d_embed, d_model, bias=False) if cfg.d_embed != d_model else None
        rows = None if cfg.n_positions is None else cfg.n_positions + cfg.position_offset
        self.positions = None if rows is None else nn.Embedding(rows, d_model)

    def forward(self, ids: Int[Tensor, "b p"], frame: Frame, taps: AnyTaps = OFF) -> Float[Tensor, "b p d"]:
        x = self.tokens(ids)
        if self.cfg.scale != 1.0:
            x = x * torch.tensor(self.cfg.scale, dtype=x.dtype, device=x.device)
        if self.project is not None:
            x = self.project(x)
        x = taps(self.hook_embed, x)
        if self.positions is None:
            return x
        where = self.positions(frame.positions + self.cfg.position_offset)
        if taps.wants(self.hook_pos_embed):
            where = taps(self.hook_pos_embed, where.expand(x.shape))
        return x + where

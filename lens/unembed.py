"""The last residual stream to logits.

Letters: b batch, p position, d d_model, v vocabulary.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lens.config import UnembedConfig
from lens.taps import OFF, AnyTaps


class Unembed(nn.Module):
    """A linear map to the vocabulary, with projection, scale and soft cap where the family has them."""

    hook_logits = "hook_logits"

    def __init__(self, cfg: UnembedConfig, d_model: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.project = nn.Linear(d_model, cfg.d_embed, bias=False) if cfg.d_embed != d_model else None
        self.linear = nn.Linear(cfg.d_embed, cfg.d_vocab, bias=cfg.bias)

    def forward(self, x: Float[Tensor, "b p d"], taps: AnyTaps = OFF) -> Float[Tensor, "b p v"]:
        if self.project is not None:
            x = self.project(x)
        if self.cfg.scale != 1.0:
            x = x * self.cfg.scale
        logits = self.linear(x)
        if self.cfg.softcap:
            logits = torch.tanh(logits / self.cfg.softcap) * self.cfg.softcap
        return taps(self.hook_logits, logits)

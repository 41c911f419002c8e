"""The last residual stream to logits.

Letters: b batch, p position, d d_model, m d_embed, v vocabulary.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lens.config import UnembedConfig
from lens.mlp import ACTIVATIONS
from lens.norm import Norm
from lens.taps import OFF, AnyTaps

LogitsAt = int | slice | Int[Tensor, " b"] | None


class Unembed(nn.Module):
    """A linear map to the vocabulary, with projection, hidden layer, scale and soft cap where there are any."""

    hook_logits = "hook_logits"

    def __init__(self, cfg: UnembedConfig, d_model: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.transform = Transform(cfg, d_model) if cfg.transform else None
        narrow = cfg.d_embed != d_model and self.transform is None
        self.project = nn.Linear(d_model, cfg.d_embed, bias=False) if narrow else None
        self.linear = nn.Linear(cfg.d_embed, cfg.d_vocab, bias=cfg.bias)

    def forward(self, x: Float[Tensor, "b p d"], taps: AnyTaps = OFF) -> Float[Tensor, "b p v"]:
        if self.project is not None:
            x = self.project(x)
        if self.transform is not None:
            x = self.transform(x, taps)
        if self.cfg.scale != 1.0:
            x = x * self.cfg.scale
        logits = self.linear(x)
        if self.cfg.softcap:
            logits = torch.tanh(logits / self.cfg.softcap) * self.cfg.softcap
        return taps(self.hook_logits, logits)


class Transform(nn.Module):
    """The hidden layer of a masked language model's head: linear, activation, LayerNorm (arXiv 1810.04805)."""

    hook_mlm_pre = "mlm_head.hook_mlm_pre"
    hook_mlm_post = "mlm_head.hook_mlm_post"

    def __init__(self, cfg: UnembedConfig, d_model: int) -> None:
        super().__init__()
        assert cfg.transform is not None
        self.act = ACTIVATIONS[cfg.transform]
        self.dense = nn.Linear(d_model, cfg.d_embed)
        self.ln = Norm("mlm_head.ln", cfg.d_embed, "layer", cfg.norm_eps)

    def forward(self, x: Float[Tensor, "b p d"], taps: AnyTaps = OFF) -> Float[Tensor, "b p m"]:
        x = self.act(taps(self.hook_mlm_pre, self.dense(x)))
        return self.ln(taps(self.hook_mlm_post, x), taps)


def positions(x: Tensor, at: LogitsAt) -> Tensor:
    """The positions of x that are asked for; the position axis stays."""
    if at is None:
        return x
    if isinstance(at, int):
        return x[:, at, None]
    if isinstance(at, slice):
        return x[:, at]
    return x[torch.arange(x.shape[0], device=x.device), at.to(x.device), None]

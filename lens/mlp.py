"""The position-wise feed-forward network (arXiv 1706.03762, §3.3), plain or gated (GLU variants, arXiv 2002.05202), and
with softmax linear units (Elhage et al. 2022, "Softmax Linear Units"), whose LayerNorm stands behind them.

Letters: b batch, p position, d d_model, m d_mlp; `...` any leading axes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lens.config import StackConfig
from lens.norm import Norm
from lens.taps import OFF, AnyTaps


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "solu": lambda x: x * x.softmax(-1),
    "tanh": torch.tanh,
}
"""Activation functions under the names that checkpoints use."""


class MLP(nn.Module):
    """`down(act(up(x)))`, or `down(act(gate(x)) * up(x))` when gated. With `mlp_norm`, `down` reads a LayerNorm."""

    def __init__(self, site: str, cfg: StackConfig) -> None:
        super().__init__()
        assert cfg.d_mlp is not None
        self.act = ACTIVATIONS[cfg.act_fn]
        self.gate = nn.Linear(cfg.d_model, cfg.d_mlp, bias=cfg.mlp_bias) if cfg.gated else None
        self.up = nn.Linear(cfg.d_model, cfg.d_mlp, bias=cfg.mlp_bias)
        self.down = nn.Linear(cfg.d_mlp, cfg.d_model, bias=cfg.mlp_bias)
        self.ln = Norm(f"{site}.ln", cfg.d_mlp, "layer", cfg.norm_eps) if cfg.mlp_norm else None
        self.hook_mid = f"{site}.hook_mid"
        self.hook_pre, self.hook_pre_linear = f"{site}.hook_pre", f"{site}.hook_pre_linear"
        self.hook_post = f"{site}.hook_post"

    # TransformerLens's shapes, as views of the stored weights
    W_in = property(lambda self: self.up.weight.T)  # [d, m]
    W_gate = property(lambda self: None if self.gate is None else self.gate.weight.T)  # [d, m]
    W_out = property(lambda self: self.down.weight.T)  # [m, d]
    b_in = property(lambda self: _bias(self.up))  # [m]
    b_out = property(lambda self: _bias(self.down))  # [d]

    def forward(self, x: Float[Tensor, "... d"], taps: AnyTaps = OFF) -> Float[Tensor, "... d"]:
        if self.gate is None:
            post = self.act(taps(self.hook_pre, self.up(x)))
        else:
            gate = self.act(taps(self.hook_pre, self.gate(x)))
            post = gate * taps(self.hook_pre_linear, self.up(x))
        if self.ln is not None:
            post = self.ln(taps(self.hook_mid, post), taps)
        return self.down(taps(self.hook_post, post))


def _bias(linear: nn.Linear) -> Tensor:
    return linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)

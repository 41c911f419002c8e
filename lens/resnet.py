"""The convolutional network in front of a transformer that reads feature maps (ResNet, arXiv 1512.03385, table 1).

1. A convolution over 7 × 7 and a maximum over 3 × 3 halve the image twice.
2. In every block, convolutions with norms; what enters is added to what leaves, through a map where sizes differ.
3. Norms are affine maps of each channel: their statistics are those of training (frozen batch norm).

Letters: b batch, c channel, y row, x column.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lens.front_ends import ResNetConfig
from lens.mlp import ACTIVATIONS
from lens.recurrent import Weight

EPS = 1e-5


class FrozenNorm(nn.Module):
    """Each channel by the mean and variance that training saw, then gain and bias (arXiv 1502.03167, §3.1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.mean, self.variance = Weight(width), Weight(width)

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        scale = self.weight * (self.variance.weight + EPS).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.mean.weight * scale)[:, None, None]


class Convolution(nn.Module):
    """A convolution without bias, and a norm."""

    def __init__(self, d_in: int, d_out: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(d_in, d_out, size, stride, size // 2, bias=False)
        self.norm = FrozenNorm(d_out)

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c2 y2 x2"]:
        return self.norm(self.conv(x))


class Residual(nn.Module):
    """x + convolutions of x, and an activation function."""

    def __init__(self, cfg: ResNetConfig, d_in: int, d_out: int, stride: int) -> None:
        super().__init__()
        self.act = ACTIVATIONS[cfg.act_fn]
        if cfg.bottleneck:
            narrow, (first, middle) = d_out // 4, (stride, 1) if cfg.stride_early else (1, stride)
            convolutions = [
                Convolution(d_in, narrow, 1, first),
                Convolution(narrow, narrow, 3, middle),
                Convolution(narrow, d_out, 1),
            ]
        else:
            convolutions = [Convolution(d_in, d_out, 3, stride), Convolution(d_out, d_out, 3)]
        self.convolutions = nn.ModuleList(convolutions)
        self.shortcut = Convolution(d_in, d_out, 1, stride) if d_in != d_out or stride != 1 else None

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c2 y2 x2"]:
        added = x if self.shortcut is None else self.shortcut(x)
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x if i == 0 else F.relu(x))
        return self.act(x + added)


class ResNet(nn.Module):
    """Images to the feature map of the last stage."""

    def __init__(self, cfg: ResNetConfig) -> None:
        super().__init__()
        self.act = ACTIVATIONS[cfg.act_fn]
        self.stem = Convolution(cfg.n_channels, cfg.stem, 7, 2)
        blocks, width = list[Residual](), cfg.stem
        for stage, (d_out, depth) in enumerate(zip(cfg.widths, cfg.depths, strict=True)):
            for place in range(depth):
                halves = place == 0 and (stage > 0 or cfg.stride_first)
                blocks.append(Residual(cfg, width, d_out, 2 if halves else 1))
                width = d_out
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c2 y2 x2"]:
        x = F.max_pool2d(self.act(self.stem(image)), 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        return x

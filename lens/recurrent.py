"""What recurrent mixers share: they read a text from its first token to its last, and padding is not there.

1. `packed` moves the real tokens of each row together, in order; `unpacked` moves results back. Without padding
   both are nothing.
2. Convolutions and shifts look at the tokens before, of which the first few are what earlier runs left.
3. What a run leaves is what it saw at the last real token of each row.

Letters: b batch, p position, c channel, j how many tokens before, w = j + p, n any number.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from lens.frame import Frame


class Weight(nn.Module):
    """One learned tensor under a name of its own."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))


class CausalConv(nn.Module):
    """Each channel filtered over a token and the few before it: y[t] = bias + Σ weight[i] x[t - width + 1 + i]."""

    def __init__(self, n_channels: int, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_channels, width))
        self.bias = nn.Parameter(torch.zeros(n_channels)) if bias else None

    def forward(
        self, x: Float[Tensor, "b p c"], before: Float[Tensor, "b j c"] | None, frame: Frame
    ) -> tuple[Float[Tensor, "b p c"], Float[Tensor, "b j c"]]:
        """The filtered sequence, and the last inputs, which are `before` of the run that continues this one."""
        n = self.weight.shape[1] - 1
        whole = line(x, before, n, frame)
        y = F.conv1d(whole.mT, self.weight[:, None], self.bias, groups=x.shape[2]).mT
        return unpacked(y, frame), ending(whole, n, frame)


def first_steps(n: int, generator: Generator, low: float = 1e-3, high: float = 0.1) -> Float[Tensor, " n"]:
    """Biases whose softplus, the step sizes that state spaces begin with, is log-uniform between two bounds
    (arXiv 2312.00752, §3.6)."""
    steps = torch.exp(torch.rand(n, generator=generator) * (math.log(high) - math.log(low)) + math.log(low))
    return steps + torch.log(-torch.expm1(-steps))


def shifted(
    x: Float[Tensor, "b p c"], before: Float[Tensor, "b 1 c"] | None, frame: Frame
) -> tuple[Float[Tensor, "b p c"], Float[Tensor, "b 1 c"]]:
    """What stands one token earlier (zeros before the first), and the last token for the run that continues."""
    whole = line(x, before, 1, frame)
    return unpacked(whole[:, :-1], frame), ending(whole, 1, frame)


def real(frame: Frame) -> Bool[Tensor, "b p"] | None:
    """True where a new position is a token; None where all are."""
    return None if frame.valid is None else frame.valid[:, frame.past :]


def line(
    x: Float[Tensor, "b p c"], before: Float[Tensor, "b j c"] | None, n: int, frame: Frame
) -> Float[Tensor, "b w c"]:
    """The `n` tokens before (zeros at the beginning of a text), then the packed ones."""
    if before is None:
        before = x.new_zeros(x.shape[0], n, x.shape[2])
    return torch.cat([before, packed(x, frame)], 1)


def packed(x: Float[Tensor, "b p c"], frame: Frame, whole: bool = False) -> Float[Tensor, "b p c"]:
    """Real tokens first, in order; then padding. With `whole`, x has the positions of earlier runs as well."""
    valid = frame.valid if whole else real(frame)
    return x if valid is None else _taken(x, _order(valid, frame))


def unpacked(x: Float[Tensor, "b p c"], frame: Frame, whole: bool = False) -> Float[Tensor, "b p c"]:
    """The inverse of `packed`."""
    valid = frame.valid if whole else real(frame)
    if valid is None:
        return x
    return _taken(x, frame.once(("unpacked", valid.shape[1]), lambda: _order(valid, frame).argsort(1)))


def ending(whole: Float[Tensor, "b w c"], n: int, frame: Frame) -> Float[Tensor, "b j c"]:
    """The last `n` of a line, up to its last real token."""
    valid = real(frame)
    if valid is None:
        return whole[:, whole.shape[1] - n :].clone()  # a view would keep the whole line alive
    place = valid.sum(1, keepdim=True) + torch.arange(n, device=whole.device)
    return _taken(whole, place)


def _order(valid: Bool[Tensor, "b p"], frame: Frame) -> Int[Tensor, "b p"]:
    return frame.once(
        ("packed", valid.shape[1]), lambda: (~valid).to(torch.uint8).argsort(dim=1, stable=True)
    )


def _taken(x: Float[Tensor, "b w c"], place: Int[Tensor, "b j"]) -> Float[Tensor, "b j c"]:
    return x.gather(1, place[:, :, None].expand(len(x), -1, x.shape[2]))

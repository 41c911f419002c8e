"""Hyena (Poli et al. 2023, arXiv 2302.10866, §3): gates and long convolutions in turn.

1. The stream is projected to a value v and N gates x, and each channel passes a short causal convolution.
2. z = v; then N times z[t] = x[t] · (h * z)[t], with a filter h as long as the text (definition 3.1), plus a skip,
   a learned multiple of z itself.
3. Filters are functions of the distance: a small network of sine activations reads waves of it, and its output is faded
   by an exponential window, at another speed in each channel (§3.3).

Long convolutions go through the Fourier transform, over twice the length, so that nothing wraps around. They are causal
up to rounding. A run that continues another keeps what was convolved, so memory grows with the text, and each step
costs a transform of all of it.

Letters: b batch, p position, k position (earlier runs' first), d d_model, c channel, n order, t distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lens.config import MixerConfig, StackConfig
from lens.frame import Frame
from lens.kv import KeyValues
from lens.mixer import Mixer
from lens.norm import upcast
from lens.recurrent import CausalConv, Weight, packed, unpacked
from lens.taps import OFF, AnyTaps
from lens.vocabulary import Kind, Where

MOST = 4
"""The highest order."""


@dataclass(frozen=True, kw_only=True)
class Hyena(MixerConfig):
    """Channels, order N, width of the short convolution, and the network that makes the filters.

    That has `n_hidden` layers of `d_filter` sines of `frequency` times their inputs, which are distances as parts of
    `length` and `n_waves` complex waves of them. After a `fast` part of the length the fastest window has fallen to a
    hundredth, after a `slow` part the slowest; `floor` is added to all.
    """

    d_inner: int
    length: int
    order: int = 2
    conv_width: int = 3
    d_filter: int = 64
    n_hidden: int = 2
    n_waves: int = 8
    frequency: float = 10.0
    fast: float = 0.3
    slow: float = 1.5
    floor: float = 0.0
    kind: Literal["hyena"] = "hyena"


class Filters(nn.Module):
    """The implicit filters of one layer."""

    def __init__(self, cfg: Hyena) -> None:
        super().__init__()
        self.cfg = cfg
        widths = [2 * cfg.n_waves + 1, *[cfg.d_filter] * cfg.n_hidden]
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.out = nn.Linear(widths[-1], cfg.order * cfg.d_inner, bias=False)

    def forward(self, n: int) -> Float[Tensor, "n t c"]:
        """The filters at distances 0 to n - 1, float32 or finer."""
        cfg, weight = self.cfg, upcast(self.out.weight)
        t = torch.arange(n, device=weight.device, dtype=weight.dtype)[:, None] / cfg.length
        angles = 2 * math.pi * t * torch.arange(cfg.n_waves, device=weight.device, dtype=weight.dtype)
        x = torch.cat([t, angles.cos(), angles.sin()], 1)
        for linear in self.hidden:
            assert isinstance(linear, nn.Linear)
            x = torch.sin(cfg.frequency * F.linear(x, upcast(linear.weight), upcast(linear.bias)))
        h = F.linear(x, weight).unflatten(1, (cfg.order, cfg.d_inner)).transpose(0, 1)
        return h * self.window(t)

    def window(self, t: Float[Tensor, "t 1"]) -> Float[Tensor, "t c"]:
        """Exponential decays of the channels, from the slowest to the fastest."""
        cfg = self.cfg
        speeds = torch.linspace(1 / cfg.slow, 1 / cfg.fast, cfg.d_inner, device=t.device, dtype=t.dtype)
        return torch.exp(-math.log(100) * t * speeds) + cfg.floor


class HyenaOperator(nn.Module):
    """Alternating gates and long convolutions."""

    def __init__(self, site: str, cfg: StackConfig, layer: int) -> None:
        super().__init__()
        m = cfg.mixer
        assert isinstance(m, Hyena)
        check(cfg, m)
        self.cfg, self.layer = m, layer
        self.in_proj = nn.Linear(cfg.d_model, (m.order + 1) * m.d_inner)
        self.conv = CausalConv((m.order + 1) * m.d_inner, m.conv_width, True)
        self.filters = Filters(m)
        self.skip = Weight(m.order, m.d_inner)
        self.out_proj = nn.Linear(m.d_inner, cfg.d_model)
        self.hook_in_proj, self.hook_filter = f"{site}.hook_in_proj", f"{site}.hook_filter"
        self.hook_v, self.hook_y = f"{site}.hook_v", f"{site}.hook_y"
        self.hook_long = [f"{site}.hook_long{n}" for n in range(1, m.order + 1)]
        self.hook_x = [f"{site}.hook_x{n}" for n in range(1, m.order + 1)]

    def forward(
        self,
        inputs: Float[Tensor, "b p d"],
        frame: Frame,
        taps: AnyTaps = OFF,
        past: KeyValues | None = None,
    ) -> Float[Tensor, "b p d"]:
        """What the layer adds to the stream."""
        rows, total = len(inputs), frame.past + frame.n
        before = None if past is None else past.recall(self.layer, "conv", rows)
        x, last = self.conv(taps(self.hook_in_proj, self.in_proj(inputs)), before, frame)
        filters = self.filters(total)
        if taps.wants(self.hook_filter):
            filters = taps(self.hook_filter, filters.expand(rows, -1, -1, -1))
        z, *gates = x.chunk(self.cfg.order + 1, -1)
        z, kept = taps(self.hook_v, z), {"conv": last}
        for n, gate in enumerate(gates):
            earlier = None if past is None else past.recall(self.layer, f"z{n}", rows)
            kept[f"z{n}"] = whole = z if earlier is None else torch.cat([earlier, z], 1)
            long = convolved(whole, filters[..., n, :, :], frame) + upcast(z) * upcast(self.skip.weight[n])
            long = taps(self.hook_long[n], long.to(z.dtype))
            z = taps(self.hook_x[n], gate) * long
        if past is not None:
            past.keep(self.layer, **kept)
        return self.out_proj(taps(self.hook_y, z))


def convolved(z: Float[Tensor, "b k c"], h: Float[Tensor, "*b k c"], frame: Frame) -> Float[Tensor, "b p c"]:
    """Σ h[t] z[k - t] over the real tokens up to each new position."""
    total = z.shape[1]
    z = upcast(z) if frame.valid is None else upcast(z) * frame.valid[..., None]
    z = packed(z, frame, whole=True)
    y = torch.fft.irfft(torch.fft.rfft(z, 2 * total, 1) * torch.fft.rfft(h, 2 * total, -2), 2 * total, 1)
    return unpacked(y[:, :total], frame, whole=True)[:, frame.past :]


def check(c: StackConfig, m: Hyena) -> None:
    """Raise unless the operator can be made.

    Raises:
        ValueError: the order is out of range, or the stack reads in both directions.
    """
    if not 2 <= m.order <= MOST:
        raise ValueError(f"Hyena's order is 2 to {MOST}, not {m.order}")
    if not c.causal:
        raise ValueError("Hyena's filters look at what came before: causal must be true")


def words(c: StackConfig) -> str:
    m = c.mixer
    assert isinstance(m, Hyena)
    return (
        f"Hyena of order {m.order}: {m.d_inner:,} channels, gates and convolutions as long as the text in turn, with "
        f"filters from {m.n_hidden} layers of {m.d_filter} sines, behind convolutions over {m.conv_width} positions"
    )


CHANNELS = "batch pos d_inner"


def _has(order: int) -> Where:
    return Where(f"order {order} or more", lambda c: c.mixer.order >= order)


def _of(order: int) -> tuple[Kind, Kind]:
    nth = {1: "first", 2: "second", 3: "third", 4: "fourth"}[order]
    return (
        Kind(f"mixer.hook_long{order}", CHANNELS, f"output of the {nth} long convolution", _has(order)),
        Kind(f"mixer.hook_x{order}", CHANNELS, f"the gate on it, x{order}", _has(order)),
    )


MIXER = Mixer(
    "hyena",
    Hyena,
    HyenaOperator,
    kinds=(
        Kind("mixer.hook_in_proj", "batch pos (order+1)*d_inner", "value and gates before their convolution"),
        Kind(
            "mixer.hook_filter",
            "batch order distance d_inner",
            "the long filters, a copy for each text",
            extra=True,
        ),
        Kind("mixer.hook_v", CHANNELS, "the value, after the short convolution"),
        *(kind for order in range(1, MOST + 1) for kind in _of(order)),
        Kind("mixer.hook_y", CHANNELS, "the last product, before it is projected back"),
    ),
    words=words,
)

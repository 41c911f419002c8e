"""Rotary position embedding (RoFormer, arXiv 2104.09864), and its stretchings for long contexts.

Letters: b batch, p position, h head, e d_head, r rotated entries (`Rotary.dim`).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lens.config import Rotary, RotaryScaling


def frequencies(rotary: Rotary, device: torch.device | None = None) -> Float[Tensor, " half"]:
    """Radians per position of each rotated pair, float32."""
    exponents = torch.arange(0, rotary.dim, 2, dtype=torch.int64, device=device).float() / rotary.dim
    base = 1.0 / rotary.theta**exponents
    scaling = rotary.scaling
    if scaling is None:
        return base
    if scaling.kind == "linear":
        return base / scaling.factor
    if scaling.kind == "llama3":
        return _llama3(base, scaling)
    return _yarn(base, rotary, scaling)


def _llama3(base: Tensor, s: RotaryScaling) -> Tensor:
    """Low frequencies divided by the factor, high ones kept, a linear blend in between (Llama 3.1)."""
    assert s.original_n_ctx and s.low_freq_factor and s.high_freq_factor
    turns = s.original_n_ctx * base / (2 * math.pi)  # rotations within the original context
    blend = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
    between = (1 - blend) * base / s.factor + blend * base
    kept = torch.where(turns > s.high_freq_factor, base, between)
    return torch.where(turns < s.low_freq_factor, base / s.factor, kept)


def _yarn(base: Tensor, rotary: Rotary, s: RotaryScaling) -> Tensor:
    """Interpolate slow dimensions, extrapolate fast ones, ramp between (YaRN, arXiv 2309.00071, eq. 22–23)."""
    n_ctx = s.original_n_ctx
    assert n_ctx

    def dimension(rotations: float) -> float:
        per_turn = n_ctx / (rotations * 2 * math.pi)
        return rotary.dim * math.log(per_turn) / (2 * math.log(rotary.theta))

    low, high = dimension(s.beta_fast), dimension(s.beta_slow)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary.dim - 1)
    index = torch.arange(rotary.dim // 2, dtype=torch.float32, device=base.device)
    ramp = ((index - low) / max(high - low, 0.001)).clamp(0, 1)
    return base / s.factor * ramp + base * (1 - ramp)


def tables(
    rotary: Rotary, positions: Int[Tensor, "b p"], dtype: torch.dtype
) -> tuple[Float[Tensor, "b p 1 r"], Float[Tensor, "b p 1 r"]]:
    """Cosines and sines to rotate by, for each position; they broadcast over heads."""
    angles = positions[..., None].float() * frequencies(rotary, positions.device)
    angles = angles.repeat_interleave(2, -1) if rotary.interleaved else torch.cat([angles, angles], -1)
    gain = rotary.scaling.attention_factor if rotary.scaling else 1.0
    cos, sin = angles.cos(), angles.sin()
    if gain != 1.0:
        cos, sin = cos * gain, sin * gain
    return cos.to(dtype)[:, :, None], sin.to(dtype)[:, :, None]


def rotate(
    x: Float[Tensor, "b p h e"],
    cos: Float[Tensor, "b2 p 1 r"],
    sin: Float[Tensor, "b2 p 1 r"],
    interleaved: bool,
) -> Float[Tensor, "b p h e"]:
    """Rotate the first r entries of each head; the others pass through."""
    r = cos.shape[-1]
    turned = x if r == x.shape[-1] else x[..., :r]
    if interleaved:
        crossed = torch.stack([-turned[..., 1::2], turned[..., ::2]], -1).flatten(-2)
    else:
        crossed = torch.cat([-turned[..., r // 2 :], turned[..., : r // 2]], -1)
    y = turned * cos + crossed * sin
    return y if r == x.shape[-1] else torch.cat([y, x[..., r:]], -1)

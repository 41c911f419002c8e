"""LayerNorm (arXiv 1607.06450) and RMSNorm (arXiv 1910.07467), with their Jacobians in closed form.

Letters: b batch, p position, d width; `...` any leading axes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lens.taps import OFF, AnyTaps


def upcast(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Norm(nn.Module):
    """`x / scale * gain + bias`, where scale is the standard deviation of x (LayerNorm) or its root mean square."""

    def __init__(self, site: str, width: int, kind: str, eps: float, unit_offset: bool = False) -> None:
        super().__init__()
        self.centred, self.eps, self.unit_offset = kind == "layer", eps, unit_offset
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if self.centred else None
        self.hook_scale, self.hook_normalized = f"{site}.hook_scale", f"{site}.hook_normalized"

    # TransformerLens's names
    w = property(lambda self: self.gain)  # [d]
    b = property(lambda self: torch.zeros_like(self.weight) if self.bias is None else self.bias)  # [d]

    @property
    def gain(self) -> Tensor:
        """What the normalised activation is multiplied by, [d]."""
        return self.weight + 1 if self.unit_offset else self.weight

    def forward(self, x: Float[Tensor, "... d"], taps: AnyTaps = OFF) -> Float[Tensor, "... d"]:
        if not taps.wants(self.hook_scale, self.hook_normalized):
            if self.centred:
                return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
            if x.dtype.itemsize >= 4:
                return F.rms_norm(x, x.shape[-1:], self.gain, self.eps)
            return self._half(F.rms_norm(x.float(), x.shape[-1:], None, self.eps), x.dtype)
        y = self.centre(upcast(x))
        scale = taps(self.hook_scale, (y.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self._half(taps(self.hook_normalized, y / scale), x.dtype)

    def _half(self, normalized: Tensor, dtype: torch.dtype) -> Tensor:
        """Gain and bias in the order of roundings that checkpoints were trained with."""
        if self.unit_offset:
            return (normalized * self.gain.to(normalized.dtype)).to(dtype)
        y = normalized.to(dtype) * self.weight
        return y if self.bias is None else y + self.bias

    def centre(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        """The divisor for x."""
        return (self.centre(x).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def linear(self, x: Float[Tensor, "... d"], scale: Float[Tensor, "... 1"]) -> Float[Tensor, "... d"]:
        """The norm as a linear map, with its divisor held at `scale` and without bias."""
        return self.centre(x) / scale * self.gain

    def pull_back(
        self,
        gradient: Float[Tensor, "... d"],
        normalized: Float[Tensor, "... d"],
        scale: Float[Tensor, "... 1"],
    ) -> Float[Tensor, "... d"]:
        """Jᵀ g: the gradient at the norm's input from the gradient `g` at its output.

        With n = centred x / scale and g' = gain ⊙ g, Jᵀg = centre(g' − n · mean(n ⊙ g')) / scale.
        Leading axes broadcast, so one `normalized` serves the gradients of many heads.
        """
        g = gradient * self.gain
        return self.centre(g - normalized * (normalized * g).mean(-1, keepdim=True)) / scale

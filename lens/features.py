"""Images of any size as a row of positions: a backbone's feature map, place by place (DETR, arXiv 2005.12872, §3.2).

1. The backbone makes a feature map of an image; or the map is given. Where images were padded to one size, their mask
   of pixels becomes one of places.
2. A linear map of each place's channels, in reading order, is the stream.
3. Positions are not added to the stream, but to what queries and keys read in every layer: sines and cosines of the
   row (the first half) and the column, counted in parts of what is real of the image; or learned vectors of both.

Letters: b batch (1 where all rows agree), c channel, y row, x column, p position, d d_model, i half of d.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lens.frame import Frame
from lens.front_ends import FeatureConfig
from lens.inputs import ModelInputs
from lens.norm import upcast
from lens.resnet import ResNet
from lens.taps import OFF, AnyTaps


class Features(nn.Module):
    """The backbone, the map from channels to the stream, and tables of positions where they are learned."""

    def __init__(self, cfg: FeatureConfig, d_model: int, prefix: str = "") -> None:
        super().__init__()
        self.cfg, self.d_model = cfg, d_model
        self.backbone = ResNet(cfg.backbone)
        self.linear = nn.Conv2d(cfg.width, d_model, 1)
        self.rows = nn.Embedding(cfg.n_places, d_model // 2) if cfg.learned else None
        self.columns = nn.Embedding(cfg.n_places, d_model // 2) if cfg.learned else None
        self.hook_features = f"{prefix}hook_features"

    def seen(self, given: ModelInputs, taps: AnyTaps = OFF) -> ModelInputs:
        """The feature map of images, or the one given, and which of its places are real, [b, p].

        Raises:
            ValueError: it has more rows or columns than there are learned positions.
        """
        features = self.backbone(given.image) if given.features is None else given.features
        rows, columns = features.shape[2:]
        if self.cfg.learned and max(rows, columns) > self.cfg.n_places:
            n = self.cfg.n_places
            raise ValueError(
                f"a feature map of {rows} × {columns} has places beyond the {n} × {n} learned positions"
            )
        features, mask = taps(self.hook_features, features), given.mask
        if mask is not None:
            mask = F.interpolate(mask[None].float(), size=features.shape[-2:])[0].flatten(1).bool()
        return ModelInputs(features=features, mask=mask)

    def forward(self, features: Float[Tensor, "b c y x"]) -> Float[Tensor, "b p d"]:
        """The stream that the first block reads."""
        return self.linear(features).flatten(2).mT

    def places(self, frame: Frame) -> Float[Tensor, "b p d"]:
        """Positions of the places of a map of `frame.grid`."""
        assert frame.grid is not None
        rows, columns = frame.grid
        if self.rows is not None and self.columns is not None:
            row = self.rows.weight[:rows, None].expand(-1, columns, -1)
            column = self.columns.weight[None, :columns].expand(rows, -1, -1)
            return torch.cat([column, row], -1).flatten(0, 1)[None]
        if frame.valid is None:
            valid = torch.ones(1, rows, columns, dtype=torch.bool, device=frame.device)
        else:
            valid = frame.valid.unflatten(1, frame.grid)
        return sines(valid, self.d_model // 2, frame.dtype).flatten(1, 2)


def sines(valid: Bool[Tensor, "b y x"], width: int, dtype: torch.dtype) -> Float[Tensor, "b y x d"]:
    """Sine (even entries) and cosine (odd) of row and column, which run to 2π over what is real."""
    real = upcast(valid.to(dtype))
    wavelengths = 10000.0 ** (2 * (torch.arange(width, device=valid.device) // 2).to(real.dtype) / width)

    def half(axis: int) -> Float[Tensor, "b y x i"]:
        place = real.cumsum(axis)
        place = place / (place.narrow(axis, -1, 1) + 1e-6) * 2 * math.pi
        angles = place[..., None] / wavelengths
        return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], -1).flatten(-2)

    return torch.cat([half(1), half(2)], -1).to(dtype)


@cache
def shapes(cfg: FeatureConfig, d_model: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters, from a copy of them that has no values."""
    with torch.device("meta"):
        return {name: tuple(x.shape) for name, x in Features(cfg, d_model).state_dict().items()}

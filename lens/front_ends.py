"""What stands in the tokens' place: the patches of an image, or the mel frames of a sound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """An image as a row of positions (ViT, arXiv 2010.11929): one per patch, in reading order.

    With `class_token`, a learned vector stands in front of them. `bias` is that of the map of patches.
    """

    image_size: tuple[int, int]  # height, width
    patch_size: tuple[int, int]
    n_channels: int = 3
    class_token: bool = True
    bias: bool = True

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        (height, width), (h, w) = self.image_size, self.patch_size
        return height // h, width // w

    @property
    def n_positions(self) -> int:
        rows, columns = self.grid
        return rows * columns + self.class_token


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """A sound as a row of positions (Whisper, arXiv 2212.04356): `n_frames` mel frames through two convolutions.

    Both reach over three frames, and the second takes every other one.
    """

    n_mels: int
    n_frames: int

    @property
    def n_positions(self) -> int:
        return (self.n_frames + 1) // 2


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """A residual network of convolutions (He et al. 2015, arXiv 1512.03385): a stem, then stages of blocks.

    Blocks are two convolutions over 3 × 3, or with `bottleneck` a narrow one between two over single places. The first
    block of a stage halves rows and columns, in the first stage only with `stride_first`; in a bottleneck the middle
    convolution does, or with `stride_early` the first.
    """

    stem: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    n_channels: int = 3
    bottleneck: bool = True
    stride_first: bool = False
    stride_early: bool = False
    act_fn: str = "relu"


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """An image of any size as a row of positions (DETR, arXiv 2005.12872): the places of a backbone's last feature map.

    Their positions are sines of row and column, or vectors that were `learned` for each of `n_places` of them.
    """

    backbone: ResNetConfig
    learned: bool = False
    n_places: int = 50

    @property
    def width(self) -> int:
        """Channels of the feature map."""
        return self.backbone.widths[-1]

"""Pictures as the numbers that a model reads, through the Hugging Face processor that its checkpoint names.

Letters: b batch, c channel, y row, x column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lens.inputs import Array, ModelInputs

if TYPE_CHECKING:
    from lens.config import EmbedConfig, ModelConfig, PatchConfig
    from lens.model import Transformer


def to_inputs(model: Transformer, given: Any) -> ModelInputs:
    """One or several pictures: Pillow's images, or arrays [y, x, c], [c, y, x] or [y, x] of whole numbers from 0 to
    255, of any size. They become coloured, or grey for a model of one channel; what is transparent counts as opaque.

    Raises:
        ValueError: they are something else, the checkpoint names no processor, or Pillow is not installed.
    """
    return ModelInputs(image=pixels(model, _several(model, given))["pixel_values"]).to(model.device)


def _several(model: Transformer, given: Any) -> list[Any]:
    several = list(given) if isinstance(given, list | tuple) or getattr(given, "ndim", 0) == 4 else [given]
    if not several or not all(isinstance(one, Array | Tensor) for one in several):
        kind = type(several[0]).__name__ if several else "an empty list"
        raise ValueError(f"{model.cfg.name} reads images, arrays or pictures of Pillow, not {kind}")
    return several


def _picture(given: Any, n_channels: int, name: str) -> Any:
    """One picture of Pillow in the channels that a model reads.

    Raises:
        ValueError: it is an array of another shape or type, or a picture of more than 8 bits per channel.
    """
    from PIL import Image

    if isinstance(given, Image.Image):
        if given.mode[0] in "IF":
            raise ValueError(
                f"{name} reads pictures of 8 bits per channel, not of mode {given.mode!r}: convert it first"
            )
        return given.convert("L" if n_channels == 1 else "RGB")
    pixels = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
    if pixels.ndim == 3 and pixels.shape[-1] not in _CHANNELS and pixels.shape[0] in _CHANNELS:
        pixels = pixels.transpose(1, 2, 0)
    whole = pixels.dtype.kind in "iu" and pixels.size and pixels.min() >= 0 and pixels.max() <= 255
    if not whole or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in _CHANNELS):
        of = f"{list(pixels.shape)} {pixels.dtype}"
        raise ValueError(
            f"{name} reads arrays [y, x, channel] or [y, x] of whole numbers 0 to 255 as pictures, not {of}; give what "
            "is scaled already as a tensor [batch, channel, y, x]"
        )
    grey = pixels.ndim == 3 and pixels.shape[-1] == 1
    made = Image.fromarray((pixels[..., 0] if grey else pixels).astype(np.uint8))
    return made.convert("L" if n_channels == 1 else "RGB")


_CHANNELS = (1, 3, 4)
"""Grey, coloured, or coloured with transparency."""


def is_picture(given: Any, cfg: ModelConfig) -> bool:
    """Are these pixels as pictures have them, of a model that reads images?"""
    takes = cfg.embed.patches is not None or reads(cfg)
    return takes and isinstance(given, Tensor) and given.dtype == torch.uint8 and given.ndim in (2, 3, 4)


def reads(cfg: ModelConfig) -> bool:
    """Does this model's encoder read images of any size?"""
    return cfg.source is not None and cfg.source.embed.features is not None


def of_source(given: ModelInputs, cfg: ModelConfig) -> bool:
    """Are these images, or their features, that an encoder reads?"""
    return reads(cfg) and given.source is None and (given.image is not None or given.features is not None)


def source(model: Transformer, given: Any) -> ModelInputs:
    """Pictures of several sizes, or images [b, c, y, x], as the encoder's inputs; what pads pictures is masked.

    Raises:
        ValueError: as `to_inputs`.
    """
    if isinstance(given, Tensor) and given.ndim == 4 and given.is_floating_point():
        return ModelInputs(image=given)
    made = pixels(model, _several(model, given))
    mask = made.get("pixel_mask")
    return ModelInputs(image=made["pixel_values"], mask=None if mask is None else mask.bool()).to(
        model.device
    )


def checked(given: ModelInputs, cfg: ModelConfig, dtype: torch.dtype) -> ModelInputs:
    """Images or feature maps as an encoder reads them.

    Raises:
        ValueError: they are neither, or have another shape.
    """
    assert cfg.source is not None and cfg.source.embed.features is not None
    front = cfg.source.embed.features
    x, n = given.features, front.width
    name, wanted = "features", f"{cfg.name} reads images [batch, {front.backbone.n_channels}, row, column]"
    if x is None:
        x, n, name = given.image, front.backbone.n_channels, "image"
    if x is None or given.stream is not None:
        raise ValueError(f"{wanted} or their features [batch, {front.width}, row, column]")
    if x.ndim != 4 or x.shape[1] != n or not x.is_floating_point():
        raise ValueError(
            f"{wanted} or their features, of floating type; {name} is {tuple(x.shape)} {x.dtype}"
        )
    if given.mask is not None and (given.mask.ndim != 3 or len(given.mask) != len(x)):
        raise ValueError(f"the mask of images is [batch, row, column], not {tuple(given.mask.shape)}")
    x = x.to(dtype)
    return ModelInputs(**{name: x}, mask=given.mask)  # type: ignore[arg-type]


def check_queries(given: ModelInputs, cfg: ModelConfig) -> None:
    """Raise unless all object queries are there, in order: a model reads no fewer."""
    n = cfg.embed.n_positions
    if given.ids is None or given.ids.ndim != 2 or given.ids.shape[1] != n:
        raise ValueError(f"{cfg.name} has {n} object queries of its own: give what its encoder reads alone")


def pixels(model: Transformer, pictures: list[Any]) -> Mapping[str, Tensor]:
    """What the processor makes of pictures: their pixels in the size and scale that the model was trained on."""
    cfg = model.cfg.embed.patches
    size = (
        f"[batch, {cfg.n_channels}, {cfg.image_size[0]}, {cfg.image_size[1]}]"
        if cfg
        else "[batch, channel, y, x]"
    )
    if model.preprocessing is None:
        wanted = f"give pixels {size} as a tensor, scaled as the model was trained"
        raise ValueError(
            f"{model.cfg.name} comes without an image processor (preprocessor_config.json): {wanted}"
        )
    if find_spec("PIL") is None:
        raise ValueError(f"pictures are read with Pillow, which is not installed; or give pixels {size}")
    n_channels = cfg.n_channels if cfg else 3
    pictures = [_picture(one, n_channels, model.cfg.name) for one in pictures]
    processor = _processor(json.dumps(model.preprocessing), model.cfg.family)
    return processor(images=pictures, return_tensors="pt")


@cache
def _processor(settings: str, model_type: str) -> Any:
    """The processor of these settings, or where they do not name one, that of a model type."""
    from transformers import AutoImageProcessor

    told = json.loads(settings)
    told.pop("auto_map", None)  # code of others is not run
    named = told.pop("image_processor_type", None) or told.pop("feature_extractor_type", None)
    if named is not None:
        told["image_processor_type"] = named.replace("FeatureExtractor", "ImageProcessor")
    with TemporaryDirectory() as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(told))
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": model_type}))
        try:
            return AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise ValueError(
                f"preprocessor_config.json: no image processor {named or model_type!r}"
            ) from error


def check_size(image: Tensor | None, cfg: PatchConfig, name: str) -> None:
    """Raise unless these are images of the size that the model reads."""
    size = ("batch", cfg.n_channels, *cfg.image_size)
    wanted = f"{name} reads images [{', '.join(map(str, size))}]"
    if image is None:
        raise ValueError(f"{wanted}, and was given something else")
    if image.ndim != 4 or tuple(image.shape[1:]) != size[1:] or not image.is_floating_point():
        raise ValueError(f"{wanted} of floating type, not {tuple(image.shape)} {image.dtype}")


def instead(embed: EmbedConfig | None) -> str:
    """What floats could have been meant to be, beside a residual stream."""
    if embed is None or (embed.patches is None and not embed.of_tokens):
        return ""
    if embed.patches is None:
        return "; token ids are whole numbers"
    n_channels, (rows, columns) = embed.patches.n_channels, embed.patches.image_size
    return f"; images are [batch, {n_channels}, {rows}, {columns}]"

"""Images to look at: the test images that a shipped model was measured on, and pictures that a person gave.

An address names one by its index among the test images, or an uploaded one by `u` and the hash of its contents.

Letters: n image, c channel, y row, x column.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lens.config import ModelConfig
    from lens.model import Transformer

UPLOADED = re.compile(r"u[0-9a-f]{12}")
MOST_BYTES = 4 * 2**20
MOST_PIXELS = 4096 * 4096
MOST_KEPT = 32

_UPLOADS: OrderedDict[str, NDArray[np.float32]] = OrderedDict()


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images [n, c, y, x] as a model reads them, and the class [n] that each shows."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def first_of(self, label: int) -> int | None:
        """The first image of a class."""
        found = np.flatnonzero(self.labels == label)
        return int(found[0]) if found.size else None


def test_images(cfg: ModelConfig) -> ImageSet | None:
    """The images that a shipped model was tested on; None for other models."""
    return _digits() if cfg.name == "digits-vit" else None


@cache
def _digits() -> ImageSet:
    from lens.shipped.digits_vit import digits, parts

    images, labels = digits()
    tests = parts()[1]
    return ImageSet(images[tests].numpy(), labels[tests].numpy())


def classes_of(cfg: ModelConfig) -> tuple[str, ...]:
    """The names of a model's classes, numbers where it does not say; none without a classifier of images."""
    if cfg.classifier is None or cfg.classifier.of != "text":
        return ()
    n = cfg.classifier.n_classes
    told = cfg.hf.get("id2label") or {}
    named = tuple(str(told.get(i, told.get(str(i), i))) for i in range(n))
    return named if len(set(named)) == n else tuple(map(str, range(n)))


# ---- pictures that a person gives


def take_in(model: Transformer, name: str, data: bytes) -> str:
    """An uploaded .png or .npy file, kept for this process; gives what an address calls it.

    Raises:
        ValueError: it is too large, damaged, or of a size that the model does not read.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"{name} has {len(data) / 2**20:.0f} MB; at most {MOST_BYTES // 2**20} are read")
    pixels = _array(model, name, data) if name.lower().endswith(".npy") else _png(model, name, data)
    key = "u" + hashlib.sha256(pixels.tobytes()).hexdigest()[:12]
    _UPLOADS[key] = pixels
    _UPLOADS.move_to_end(key)
    while len(_UPLOADS) > MOST_KEPT:
        _UPLOADS.popitem(last=False)
    return key


def uploaded(key: str) -> NDArray[np.float32] | None:
    """A picture that was taken in, by its name in the address."""
    return _UPLOADS.get(key)


def _png(model: Transformer, name: str, data: bytes) -> NDArray[np.float32]:
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"{name} has {picture.width} × {picture.height} pixels, which is too many")
        picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} is no PNG picture that can be read") from error
    if model.preprocessing is not None:
        made = model.to_inputs(picture.convert("RGB")).image
        assert made is not None
        return made[0].float().cpu().numpy()
    patches = model.cfg.embed.patches
    assert patches is not None
    grey = np.asarray(picture.convert("L" if patches.n_channels == 1 else "RGB"))
    return _fitting(model, name, grey[None] if grey.ndim == 2 else grey.transpose(2, 0, 1))


def _array(model: Transformer, name: str, data: bytes) -> NDArray[np.float32]:
    try:
        given: Any = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{name} is no array that can be read") from error
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "fui":
        raise ValueError(f"{name} holds no array of numbers")
    return _fitting(model, name, given[None] if given.ndim == 2 else given)


def _fitting(model: Transformer, name: str, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels [c, y, x] of the size that the model reads; whole numbers 0 to 255 become −1 to 1, others stay."""
    patches = model.cfg.embed.patches
    assert patches is not None
    wanted = (patches.n_channels, *patches.image_size)
    if pixels.shape != wanted:
        sizes = " × ".join(map(str, pixels.shape))
        raise ValueError(f"{name} is {sizes}; {model.name} reads {' × '.join(map(str, wanted))}")
    if pixels.dtype.kind != "f":
        if pixels.min() < 0 or pixels.max() > 255:
            raise ValueError(f"{name}: whole numbers must be 0 to 255")
        pixels = pixels / 127.5 - 1
    if not np.isfinite(pixels).all():
        raise ValueError(f"{name} has entries that are no numbers")
    return np.ascontiguousarray(pixels, np.float32)

"""Attention over an image to what the page draws: the picture, and for every query the weights of its patches.

Letters: c channel, y row, x column, q query position, k key position, l layer, h head, r, s row and column of patches.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dashboard.scene import Picture


class PicturePayload(TypedDict):
    """What `components/picture` draws. `packed`: weights [q, k] in 65536 levels, little endian, base64.

    Positions are `first` (1 where there is a class token) and then the patches of `rows` × `columns`. With `values`,
    one per patch and with a sign, these are drawn instead of weights; `unit` says what they are.
    """

    title: str
    png: str
    rows: int
    columns: int
    first: int
    packed: str
    values: list[float]
    unit: str


def levels(pixels: NDArray[np.floating]) -> NDArray[np.uint8]:
    """An image [c, y, x] of any scale to levels [y, x] or [y, x, 3]: its least value is black, its greatest white."""
    low, high = float(pixels.min()), float(pixels.max())
    scaled = np.rint(255 * (pixels - low) / (high - low or 1.0)).astype(np.uint8)
    return scaled[0] if len(scaled) != 3 else np.ascontiguousarray(scaled.transpose(1, 2, 0))


def png(pixels: NDArray[np.floating]) -> str:
    """An image [c, y, x] as a PNG in base64."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(levels(pixels)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def picture_payload(picture: Picture, pattern: NDArray[np.floating], *, title: str) -> PicturePayload:
    """The picture of a pattern [q, k] over an image's positions.

    Raises:
        ValueError: the pattern does not have one row and column per position.
    """
    n = picture.first + picture.rows * picture.columns
    if pattern.shape != (n, n):
        raise ValueError(f"a pattern of shape {tuple(pattern.shape)} does not fit {n} positions")
    packed = np.rint(np.clip(pattern, 0.0, 1.0) * 65535).astype("<u2")
    return _payload(picture, title, base64.b64encode(np.ascontiguousarray(packed).tobytes()).decode())


def signed_payload(
    picture: Picture, values: NDArray[np.floating], *, title: str, unit: str
) -> PicturePayload:
    """The picture of one number per patch; negative ones get the colour of what supports.

    Raises:
        ValueError: there is not one value per patch.
    """
    if values.shape != (picture.rows * picture.columns,):
        raise ValueError(
            f"values of shape {tuple(values.shape)} do not fit {picture.rows * picture.columns} patches"
        )
    return _payload(picture, title, "", [round(float(v), 4) for v in values], unit)


def _payload(
    picture: Picture, title: str, packed: str, values: list[float] | None = None, unit: str = "attention"
) -> PicturePayload:
    return {
        "title": title,
        "png": png(picture.pixels),
        "rows": picture.rows,
        "columns": picture.columns,
        "first": picture.first,
        "packed": packed,
        "values": values or [],
        "unit": unit,
    }


def over_picture(
    patterns: NDArray[np.floating], picture: Picture, query: int
) -> tuple[NDArray[np.uint8], float]:
    """What one query of every head looks at, as small pictures [l, h, r, s] of its patches, and the weight of full
    colour: the largest of all."""
    on = patterns[..., query, picture.first :]
    most = float(on.max()) or 1.0
    shape = (*patterns.shape[:2], picture.rows, picture.columns)
    return np.rint(255 * np.sqrt(np.clip(on / most, 0, 1))).astype(np.uint8).reshape(shape), most

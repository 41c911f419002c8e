"""Images to one sheet of small pictures, each with its index and label.

Letters: n image, c channel, y row, x column.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from dashboard.figures.picture import levels


class ThumbnailsPayload(TypedDict):
    """What `components/thumbnails` draws: a PNG in which images of `wide` × `tall` pixels stand one below the other."""

    title: str
    png: str
    wide: int
    tall: int
    index: list[int]
    labels: list[str]


def thumbnails_payload(
    images: NDArray[np.floating], index: Sequence[int], labels: Sequence[str], *, title: str
) -> ThumbnailsPayload:
    """The sheet of `images` [n, c, y, x], which are called `index` and show `labels`.

    Raises:
        ValueError: there is not one index and one label per image.
    """
    from PIL import Image

    if not len(images) == len(index) == len(labels):
        raise ValueError(f"{len(index)} indices and {len(labels)} labels do not fit {len(images)} images")
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([levels(image) for image in images])).save(buffer, "PNG")
    return {
        "title": title,
        "png": base64.b64encode(buffer.getvalue()).decode(),
        "wide": images.shape[3],
        "tall": images.shape[2],
        "index": list(index),
        "labels": list(labels),
    }

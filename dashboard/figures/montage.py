"""Attention patterns of all heads to one small picture.

1. A head's pattern is max-pooled to at most `TILE` × `TILE`, so that one strong cell of a long prompt stays
   visible (averaging would wash it out).
2. Weights become 256 levels on a square-root scale.
3. All heads are laid out in one PNG with a palette, one row of squares per layer. The palette is nothing but
   opacity: the page tints it in the colours of its theme.

Shapes: l layer, h head, q query position, k key position, t side of a square.
"""

from __future__ import annotations

import base64
import io
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

TILE = 48


class GalleryPayload(TypedDict):
    """What `components/gallery` draws. `about` has one line per head, layer by layer.

    Where it is `ranked`, `order` are the heads that are shown, by their number layer by layer, with a label each.
    `letter` is the first of the heads' names. A square is `tile` pixels wide and `tall` high; `most` is the weight of
    full colour. With a `backdrop` (a PNG in base64, or ""), squares are heat over that picture, and `patch` is outlined
    (−1: none). `legend`, `hint`: whether the scale above and the line below are shown.
    """

    title: str
    letter: str
    png: str
    backdrop: str
    patch: int
    most: float
    legend: bool
    hint: bool
    tile: int
    tall: int
    layers: int
    heads: int
    rows: int
    blocks: int
    largest: int
    pooled: str
    about: list[str]
    ranked: bool
    order: list[int]
    labels: list[str]


def pool(patterns: NDArray[np.floating], side: int = TILE) -> NDArray[np.uint8]:
    """Weights [h, q, k] in 0…1 to levels [h, t, u], t = min(q, side), u = min(k, side), max-pooled where there are
    more."""
    for axis in (1, 2):
        n = patterns.shape[axis]
        if n > side:
            patterns = np.maximum.reduceat(patterns, np.arange(side) * n // side, axis=axis)
    return np.rint(255 * np.sqrt(np.clip(patterns, 0.0, 1.0))).astype(np.uint8)


def montage(tiles: NDArray[np.uint8]) -> bytes:
    """Levels [l, h, t, u] to a PNG of h · u by l · t pixels whose palette is opacity."""
    from PIL import Image

    layers, heads, tall, wide = tiles.shape
    levels = tiles.transpose(0, 2, 1, 3).reshape(layers * tall, heads * wide)
    image = Image.fromarray(np.ascontiguousarray(levels)).convert("P")
    image.putpalette([v for level in range(256) for v in (255 - level,) * 3])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=bytes(range(256)), optimize=False)
    return buffer.getvalue()


def blocks_for(layers: int, heads: int) -> int:
    """Into how many side-by-side blocks a stack is cut so that the gallery is about as wide as high."""
    return min(range(1, layers + 1), key=lambda b: abs(np.log(b * heads / (-(-layers // b)) / 1.15)))


def gallery_payload(
    tiles: NDArray[np.uint8],
    n_tokens: int,
    about: list[str],
    *,
    title: str,
    order: list[int] | None = None,
    labels: list[str] | None = None,
    letter: str = "a",
    backdrop: str = "",
    patch: int = -1,
    most: float = 1.0,
    largest: int = 110,
    legend: bool = True,
    hint: bool = True,
) -> GalleryPayload:
    """The gallery of `tiles` [l, h, t, u] for a prompt of `n_tokens`; `about` is one line per head.

    With `order`, only these heads (layer · heads + head) in this order, with a label each; None: all, by layer.

    Raises:
        ValueError: there is not one label per head of `order`.
    """
    if len(order or ()) != len(labels or ()):
        raise ValueError(f"{len(labels or ())} labels do not fit {len(order or ())} heads")
    layers, heads, tall, side = tiles.shape
    blocks = blocks_for(layers, heads)
    rows = -(-layers // blocks)
    return {
        "title": title,
        "letter": letter,
        "png": base64.b64encode(montage(tiles)).decode(),
        "backdrop": backdrop,
        "patch": patch,
        "most": most,
        "legend": legend,
        "hint": hint,
        "tile": side,
        "tall": tall,
        "layers": layers,
        "heads": heads,
        "rows": rows,
        "blocks": -(-layers // rows),
        "largest": max(40, min(largest, 560 // rows)),
        "pooled": f"{n_tokens} tokens, max-pooled to {tall} × {side}"
        if n_tokens > max(side, tall) and not backdrop
        else "",
        "about": about,
        "ranked": order is not None,
        "order": order or [],
        "labels": labels or [],
    }

"""A table of numbers to a grid of coloured cells that can be clicked.

Shapes: r row, c column.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class GridPayload(TypedDict):
    """What `components/grid` draws.

    `packed`: values [r, c] as float32, little endian, base64; NaN where there is nothing to show. `bound`: the
    value of the strongest colour. `diverging`: whether values have a sign; `flip` gives negative values the colour of
    what opposes. `up`: whether row 0 is at the bottom.
    `texts`: short texts in the cells, row by row, or none. `about`: further lines of the cells' tooltips, or none.
    """

    title: str
    rows: list[str]
    columns: list[str]
    packed: str
    bound: float
    diverging: bool
    flip: bool
    up: bool
    unit: str
    texts: list[str]
    about: list[str]


def grid_payload(
    values: NDArray[np.floating],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    unit: str = "effect",
    texts: Sequence[str] = (),
    about: Sequence[str] = (),
    diverging: bool = True,
    flip: bool = False,
    up: bool = True,
    bound: float | None = None,
) -> GridPayload:
    """The picture of `values` [r, c].

    Args:
        texts, about: one per cell, row by row, or none at all.
        bound: the value of the strongest colour; None: the largest size of a value.

    Raises:
        ValueError: the labels or the texts are not as many as the values.
    """
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"values of shape {tuple(values.shape)} do not fit {len(rows)} rows and {len(columns)} columns"
        )
    for name, given in (("texts", texts), ("lines about the cells", about)):
        if given and len(given) != values.size:
            raise ValueError(f"{len(given)} {name} do not fit {values.size} cells")
    sizes = np.abs(values[np.isfinite(values)])
    largest = float(sizes.max()) if sizes.size else 0.0
    return {
        "title": title,
        "rows": list(rows),
        "columns": list(columns),
        "packed": base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode(),
        "bound": (largest if bound is None else bound) or 1.0,
        "diverging": diverging,
        "flip": flip,
        "up": up,
        "unit": unit,
        "texts": list(texts),
        "about": list(about),
    }

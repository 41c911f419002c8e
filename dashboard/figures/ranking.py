"""Heads in the order of a score: which are shown, and how they are labelled.

Letters: l layer, h head.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuits.places import head_name


def ranking(
    values: NDArray[np.floating],
    *,
    by_size: bool = False,
    least: float = 0.0,
    layers: tuple[int, int] | None = None,
) -> list[int]:
    """Numbers (layer · heads + head) of the heads whose value [l, h] is at least `least`, largest first.

    Args:
        by_size: the size of a value counts, whatever its sign.
        layers: first and last layer that is shown; None: all.
    """
    flat = np.abs(values).ravel() if by_size else values.ravel()
    first, last = layers or (0, len(values) - 1)
    heads = values.shape[1]
    inside = (np.arange(flat.size) // heads >= first) & (np.arange(flat.size) // heads <= last)
    kept = np.flatnonzero(inside & ~np.isnan(flat) & (flat >= least))
    return kept[np.argsort(-flat[kept], kind="stable")].tolist()


def rank_labels(values: NDArray[np.floating], order: list[int], *, signed: bool = False) -> list[str]:
    """`a9.h2 0.83` for each head of `order`."""
    heads = values.shape[1]
    form = "{} {:+.2f}" if signed else "{} {:.2f}"
    return [form.format(head_name(*divmod(i, heads)), values[divmod(i, heads)]) for i in order]

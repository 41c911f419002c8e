"""What kind of head is it? Four numbers per head, read off its attention pattern.

Each is a mean over the queries where it can be asked, of the attention that the query gives

- previous token: to the token just before it;
- duplicate token: to earlier occurrences of the same token;
- induction: to the tokens just after earlier occurrences of the same token ("prefix matching" of Olsson et
  al. 2022, arXiv 2209.11895);
- BOS sink: to position 0.

A prompt without repeated tokens has no duplicate and induction scores: they are NaN.

Shapes: h head, q query position, k key position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

KINDS = {
    "previous token": "attention to the token just before the query",
    "duplicate token": "attention to earlier occurrences of the query's token",
    "induction": "attention to the token after an earlier occurrence of the query's token",
    "BOS sink": "attention to position 0",
}


def head_scores(patterns: NDArray[np.floating], ids: Sequence[int]) -> NDArray[np.float32]:
    """Scores [h, 4] of patterns [h, q, k] over the tokens `ids`, in the order of `KINDS`."""
    n, tokens = len(ids), np.asarray(ids)
    earlier = np.tril(np.ones((n, n), dtype=bool), -1)
    duplicate = (tokens[:, None] == tokens[None, :]) & earlier
    after = np.zeros_like(duplicate)
    after[:, 1:] = duplicate[:, :-1]
    after &= earlier
    previous = np.eye(n, k=-1, dtype=bool)
    first = np.zeros_like(duplicate)
    first[1:, 0] = True
    return np.stack([_mean(patterns, keys) for keys in (previous, duplicate, after, first)], axis=1)


def _mean(patterns: NDArray[np.floating], keys: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The attention [h] that falls on `keys` [q, k], mean over the queries that have any."""
    asked = keys.any(1)
    if not asked.any():
        return np.full(len(patterns), np.nan, dtype=np.float32)
    return (patterns[:, asked] * keys[asked]).sum(-1).mean(-1).astype(np.float32)


def strongest_kind(scores: NDArray[np.floating]) -> str:
    """A short phrase for the largest of one head's scores [4], or "" where none reaches 0.3."""
    known = np.nan_to_num(scores, nan=-1.0)
    best = int(known.argmax())
    return f"{list(KINDS)[best]} {known[best]:.2f}" if known[best] >= 0.3 else ""

"""Words in tokens: which tokens of a text stand for a row's characters.

1. A tokenizer gives each token the characters it stands for; tokens that it added itself stand for none.
2. A row's tokens are those that share a character with it. They stand together; a token that two words share
   ("don't" as `don` + `'t`, of the words "do" and "n't") belongs to both. Of such rows a warning tells.

Letters: p token, k rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from probes.labelled import Labelled


def token_ranges(
    labelled: Labelled,
    rows: np.ndarray,
    offsets: np.ndarray | Sequence[tuple[int, int]],
    place: str | None = None,
) -> np.ndarray:
    """Int64 [k, 2]: the tokens [first, stop) of some rows of one text.

    Args:
        rows: int64 [k], all of the same text.
        offsets: [p, 2], the characters of each token of that text; (0, 0) for an added one.
        place: a named span of each row instead of the row itself.

    Raises:
        ValueError: no token stands for a row; text and word are named.
    """
    offsets = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    real = np.flatnonzero(offsets[:, 0] < offsets[:, 1])
    starts, ends = offsets[real, 0], offsets[real, 1]
    spans = labelled.spans if place is None else labelled.places[place]
    found = np.empty((len(rows), 2), dtype=np.int64)
    for i, row in enumerate(rows.tolist()):
        start, end = (0, np.inf) if spans is None else spans[row]
        hit = real[(starts < end) & (ends > start)]
        if not hit.size:
            raise ValueError(f"{described(labelled, row, place)}: no token stands for it")
        found[i] = hit[0], hit[-1] + 1
    return found


def widened(
    labelled: Labelled,
    rows: np.ndarray,
    offsets: np.ndarray | Sequence[tuple[int, int]],
    found: np.ndarray,
    place: str | None = None,
) -> dict[int, str]:
    """Row → what its tokens stand for, of the rows whose tokens have more than blanks beyond the row's characters.

    Args:
        found: int64 [k, 2], from `token_ranges`.
    """
    spans = labelled.spans if place is None else labelled.places[place]
    if spans is None:
        return {}
    read = {}
    for row, (first, stop) in zip(rows.tolist(), found.tolist(), strict=True):
        text = labelled.texts[labelled.text[row]]
        start, end = spans[row].tolist()
        before, after = int(offsets[first][0]), int(offsets[stop - 1][1])
        if text[before:start].strip() or text[end:after].strip():
            read[row] = text[before:after].strip()
    return read


def warn_of(labelled: Labelled, read: dict[int, str], place: str | None = None) -> None:
    """One warning that tells how many rows `widened` found, and the first."""
    if not read:
        return
    row = min(read)
    spans = labelled.spans if place is None else labelled.places[place]
    assert spans is not None
    text = labelled.texts[labelled.text[row]]
    start, end = spans[row].tolist()
    count = "1 row begins or ends" if len(read) == 1 else f"{len(read)} rows begin or end"
    warnings.warn(
        f"{count} inside a token, which is read whole; the first is row {row}, {text[start:end]!r} at {start} of text "
        f"{int(labelled.text[row])}, read as {read[row]!r}",
        stacklevel=3,
    )


def described(labelled: Labelled, row: int, place: str | None = None) -> str:
    """What messages call a row: its text, and its word where it is not the whole of it."""
    index = int(labelled.text[row])
    text = labelled.texts[index]
    start_of = text if len(text) <= 40 else text[:39] + "…"
    shown = f"text {index} {start_of!r}"
    spans = labelled.spans if place is None else labelled.places[place]
    if spans is None:
        return shown
    start, end = spans[row].tolist()
    return f"{shown}, the word {text[start:end]!r} at {start}"

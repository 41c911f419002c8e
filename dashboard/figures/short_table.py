"""Rows of values to a short table of texts, one column of which may be bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class ShortTable(TypedDict):
    """What `components/short_table` draws: `heads` and `rows` of texts; `right`: which columns are numbers.

    `bar`: the column that has a bar of length `shares` (0…1, one per row) before its text; −1: none.
    """

    title: str
    heads: list[str]
    rows: list[list[str]]
    right: list[bool]
    bar: int
    shares: list[float]


def short_table(
    columns: Mapping[str, Sequence[Any]],
    formats: dict[str, str] | None = None,
    *,
    title: str,
    bar: str | None = None,
) -> ShortTable:
    """The table of some columns of equal length.

    Args:
        formats: how the numbers of a column are written, as in `format`; columns without are texts.
        bar: the column whose numbers are shares, shown as bars as well.

    Raises:
        ValueError: the columns have different lengths.
    """
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns of {' and '.join(map(str, sorted(lengths)))} rows do not make a table")
    formats = formats or {}
    written = [
        [format(value, formats[name]) if name in formats else str(value) for value in values]
        for name, values in columns.items()
    ]
    return {
        "title": title,
        "heads": list(columns),
        "rows": [list(row) for row in zip(*written, strict=True)],
        "right": [name in formats for name in columns],
        "bar": list(columns).index(bar) if bar is not None else -1,
        "shares": [float(share) for share in columns[bar]] if bar is not None else [],
    }

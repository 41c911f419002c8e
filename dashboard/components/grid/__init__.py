"""A grid of coloured cells, such as layers × positions or layers × heads; a click picks a cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dashboard.components import assets
from dashboard.figures.grid import GridPayload


def grid(
    payload: GridPayload,
    *,
    key: str,
    selected: tuple[int, int] | None = None,
    largest: tuple[int, int] = (64, 30),
    on_pick: Callable[[int, int], None] | None = None,
) -> None:
    """Draw `payload`, with the cell `selected` (row, column) marked.

    `largest`: width and height in pixels that a cell gets at most. `on_pick` receives row and column of a clicked
    cell, in the order of the payload's labels.
    """

    def picked(cell: Any) -> None:
        limits = (len(payload["rows"]), len(payload["columns"]))
        if on_pick is None or not isinstance(cell, list) or len(cell) != 2:
            return
        if all(isinstance(i, int) and 0 <= i < n for i, n in zip(cell, limits, strict=True)):
            on_pick(cell[0], cell[1])

    assets.mount("grid")(
        key=key,
        data={**payload, "selected": list(selected) if selected else None, "largest": list(largest)},
        on_pick_change=assets.forward(key, "pick", picked),
    )

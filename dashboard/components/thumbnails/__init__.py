"""Small pictures to choose one from."""

from __future__ import annotations

from collections.abc import Callable

from dashboard.components import assets
from dashboard.figures.thumbnails import ThumbnailsPayload


def thumbnails(
    payload: ThumbnailsPayload,
    *,
    key: str,
    selected: int | None = None,
    on_pick: Callable[[int], None] | None = None,
) -> None:
    """Draw `payload`; `selected` is the index of one, `on_pick` receives that of a clicked one."""
    known = set(payload["index"])

    def picked(index: object) -> None:
        if on_pick is not None and isinstance(index, int) and index in known:
            on_pick(index)

    assets.mount("thumbnails")(
        key=key,
        data={**payload, "selected": selected},
        on_pick_change=assets.forward(key, "pick", picked),
    )

"""The gallery: the attention pattern of every head as one small square each."""

from __future__ import annotations

from collections.abc import Callable

from dashboard.components import assets
from dashboard.figures.montage import GalleryPayload


def gallery(
    payload: GalleryPayload,
    *,
    key: str,
    selected: tuple[int, int] | None = None,
    on_pick: Callable[[str], None] | None = None,
) -> None:
    """Draw `payload`; `selected` is (layer, head), `on_pick` receives a clicked head's name (`"a9.h2"`)."""
    assets.mount("gallery")(
        key=key,
        data={**payload, "selected": list(selected) if selected else None},
        on_pick_change=assets.forward(key, "pick", on_pick),
    )

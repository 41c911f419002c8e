"""One head's attention over an image: click a patch, or the class token, to see what it looks at."""

from __future__ import annotations

from collections.abc import Callable

from dashboard.components import assets
from dashboard.figures.picture import PicturePayload


def picture(
    payload: PicturePayload,
    *,
    key: str,
    query: int | None = None,
    largest: int = 300,
    on_query: Callable[[int], None] | None = None,
) -> None:
    """Draw `payload` with position `query` locked (the first if None), at most `largest` pixels wide.

    `on_query` receives the position that a person locks.
    """
    assets.mount("picture")(
        key=key,
        data={**payload, "query": query, "largest": largest},
        on_query_change=assets.forward(key, "query", on_query),
    )

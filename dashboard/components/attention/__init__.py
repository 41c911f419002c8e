"""One head's attention: a heat map over the tokens, and the prompt coloured by what one query looks at."""

from __future__ import annotations

from collections.abc import Callable

from dashboard.components import assets
from dashboard.figures.attention import AttentionPayload


def attention(
    payload: AttentionPayload,
    *,
    key: str,
    query: int | None = None,
    largest: int = 30,
    on_query: Callable[[int], None] | None = None,
) -> None:
    """Draw `payload` with `query` locked (the last token if None), cells at most `largest` pixels wide.

    `on_query` receives the position that a person locks.
    """
    assets.mount("attention")(
        key=key,
        data={**payload, "query": query, "largest": largest},
        on_query_change=assets.forward(key, "query", on_query),
    )

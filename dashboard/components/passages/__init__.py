"""Passages of a text, shaded by what a head looks at from one position of each; a click picks a passage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dashboard.components import assets
from dashboard.figures.passages import PassagesPayload


def passages(payload: PassagesPayload, *, key: str, on_pick: Callable[[int], None] | None = None) -> None:
    """Draw `payload`; `on_pick` receives the number of a clicked passage."""

    def picked(value: Any) -> None:
        if on_pick is not None and isinstance(value, int) and 0 <= value < len(payload["passages"]):
            on_pick(value)

    assets.mount("passages")(key=key, data=dict(payload), on_pick_change=assets.forward(key, "pick", picked))

"""The tokens of one prompt, or of a clean prompt above its counterfactual; a click picks a position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dashboard.components import assets
from dashboard.figures.prompts import PromptsPayload


def prompts(
    payload: PromptsPayload,
    *,
    key: str,
    position: int | None = None,
    on_position: Callable[[int], None] | None = None,
) -> None:
    """Draw `payload` with `position` marked (the last token if None); `on_position` receives a clicked one."""
    n = len(payload["sides"][0]["tokens"])

    def picked(value: Any) -> None:
        if on_position is not None and isinstance(value, int) and 0 <= value < n:
            on_position(value)

    assets.mount("prompts")(
        key=key,
        data={**payload, "position": n - 1 if position is None else position},
        on_position_change=assets.forward(key, "position", picked),
    )

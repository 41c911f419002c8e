"""The circuit graph: layers bottom to top, heads in columns, MLPs at the right."""

from __future__ import annotations

from collections.abc import Callable

from dashboard.components import assets
from dashboard.figures.circuit_edges import DrawnPayload


def circuit_graph(
    payload: DrawnPayload,
    *,
    key: str,
    selected: str | None = None,
    on_pick: Callable[[str], None] | None = None,
) -> None:
    """Draw `payload`; `on_pick` receives the name of the clicked node,
    or `""` when none is selected any more."""
    assets.mount("circuit_graph")(
        key=key, data={**payload, "selected": selected}, on_pick_change=assets.forward(key, "pick", on_pick)
    )

"""The bars of the strongest nodes, and the colours that figures share.

Signs are shown from blue (negative: supports the behaviour) to orange, which colour-blind people can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

BLUE, ORANGE, GREY = "#2563eb", "#d9590b", "#8a8f98"


def literal(text: str) -> str:
    """`text` such that Plotly shows just that: in labels it reads tags, entities and `%{…}`."""
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%{", "%&#123;")):
        text = text.replace(sign, written)
    return text


def node_bars(scores: Mapping[str, float], *, top: int = 15, unit: str = "effect") -> go.Figure:
    """The `top` nodes of largest |score|, strongest first; the sign is told by colour and by side of zero."""
    import plotly.graph_objects as go

    chosen = sorted(scores.items(), key=lambda item: -abs(item[1]))[:top]
    figure = go.Figure(
        go.Bar(
            x=[value for _, value in chosen],
            y=[name for name, _ in chosen],
            orientation="h",
            marker={
                "color": [BLUE if value < 0 else ORANGE for _, value in chosen],
                "pattern": {"shape": ["" if value < 0 else "/" for _, value in chosen]},
            },
            hovertemplate="%{y}<br>" + unit + " %{x:+.4f}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title=unit)
    figure.update_layout(height=90 + 20 * len(chosen), margin={"l": 60, "r": 10, "t": 10, "b": 40})
    return figure

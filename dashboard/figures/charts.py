"""Plotly figures: scores of heads, of nodes, of layers × positions, and a circuit's faithfulness.

Signs are shown by a diverging scale from blue (negative: supports the behaviour) to orange, which
colour-blind people can tell apart; zero is transparent, so the figures fit light and dark pages.

Shapes: l layer, h head, p position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import plotly.graph_objects as go

BLUE, ORANGE, GREY = "#2563eb", "#d9590b", "#8a8f98"
DIVERGING = [[0.0, BLUE], [0.5, "rgba(138,143,152,0.10)"], [1.0, ORANGE]]


def head_heatmap(values: NDArray[np.floating], *, unit: str = "effect") -> go.Figure:
    """Values [l, h] as a heat map, layer 0 at the bottom as in the circuit graph."""
    layers, heads = values.shape
    names = [[f"a{layer}.h{head}" for head in range(heads)] for layer in range(layers)]
    figure = _heatmap(values, [f"h{h}" for h in range(heads)], [f"L{n}" for n in range(layers)], names, unit)
    figure.update_layout(height=110 + max(130, 18 * layers))
    return figure


def position_heatmap(
    values: NDArray[np.floating], tokens: Sequence[str], *, unit: str = "effect"
) -> go.Figure:
    """Values [l, p] as a heat map over the tokens of a prompt.

    Raises:
        ValueError: there is not one token per position.
    """
    if values.shape[1] != len(tokens):
        raise ValueError(f"values for {values.shape[1]} positions do not fit {len(tokens)} tokens")
    columns = [f"{i} {token}" for i, token in enumerate(tokens)]
    names = [[f"layer {layer}, position {c}" for c in columns] for layer in range(len(values))]
    figure = _heatmap(values, columns, [f"L{n}" for n in range(len(values))], names, unit)
    figure.update_xaxes(tickangle=-60)
    figure.update_layout(height=190 + max(130, 18 * len(values)))
    return figure


def _heatmap(
    values: NDArray[np.floating], columns: list[str], rows: list[str], names: list[list[str]], unit: str
) -> go.Figure:
    import plotly.graph_objects as go

    bound = float(np.nanmax(np.abs(values))) if values.size else 0.0
    bound = bound or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=columns,
            y=rows,
            zmin=-bound,
            zmax=bound,
            colorscale=DIVERGING,
            xgap=1,
            ygap=1,
            text=names,
            hovertemplate="%{text}<br>" + unit + " %{z:+.4f}<extra></extra>",
            colorbar={"title": {"text": unit}, "thickness": 12},
        )
    )
    figure.update_layout(margin={"l": 40, "r": 10, "t": 10, "b": 40})
    return figure


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


def faithfulness_curve(
    budgets: Sequence[int], circuit: Sequence[float], random: Sequence[Sequence[float]] = ()
) -> go.Figure:
    """Faithfulness of the circuit at each edge budget, and of random edge sets of the same sizes.

    `random` holds the values of the random sets per budget; their mean is drawn with the range around it.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_scatter(
        x=list(budgets),
        y=list(circuit),
        name="circuit",
        mode="lines+markers",
        line={"color": BLUE, "width": 3},
    )
    if random:
        means = [float(np.mean(values)) for values in random]
        figure.add_scatter(
            x=list(budgets),
            y=means,
            name="random edges",
            mode="lines+markers",
            line={"color": GREY, "width": 2, "dash": "dash"},
            marker={"symbol": "x"},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [max(values) - mean for values, mean in zip(random, means, strict=True)],
                "arrayminus": [mean - min(values) for values, mean in zip(random, means, strict=True)],
            },
        )
    figure.add_hline(y=1.0, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="edges", type="log" if len(budgets) > 2 else "linear")
    figure.update_yaxes(title="faithfulness")
    figure.update_layout(
        height=260, margin={"l": 50, "r": 10, "t": 10, "b": 40}, legend={"orientation": "h", "y": 1.15}
    )
    return figure

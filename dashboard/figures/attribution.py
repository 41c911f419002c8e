"""Direct logit attribution to pictures: a grid of components to click, and bars by layer.

Letters: l layer, h head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from circuits.places import head_name
from dashboard.figures.charts import BLUE, GREY, ORANGE
from dashboard.figures.grid import GridPayload, grid_payload

if TYPE_CHECKING:
    import plotly.graph_objects as go

UNIT = "share of the logit difference"


def component_names(layers: int, heads: int, mlp: bool) -> list[list[str]]:
    """The names of the grid's cells, row by row: a layer's heads, then its MLP."""
    return [[*(head_name(l, h) for h in range(heads)), *([f"m{l}"] if mlp else [])] for l in range(layers)]


def component_grid(
    shares: Mapping[str, float], layers: int, heads: int, mlp: bool, *, unit: str = UNIT
) -> GridPayload:
    """Shares of heads and MLPs as a grid, layer 0 at the bottom; what supports the answer is blue."""
    names = component_names(layers, heads, mlp)
    values = np.array([[shares[name] for name in row] for row in names])
    columns = [*(f"h{h}" for h in range(heads)), *(["MLP"] if mlp else [])]
    return grid_payload(
        values, [f"L{l}" for l in range(layers)], columns,
        title=f"{unit} by head{' and MLP' if mlp else ''}", unit=unit, flip=True,
    )  # fmt: skip


def by_layer(shares: Mapping[str, float], layers: int) -> dict[str, list[float]]:
    """Shares of attention (its bias included) and of the MLP in each layer, and of what is in no layer."""
    attention = [sum(v for name, v in shares.items() if name.startswith(f"a{l}.")) for l in range(layers)]
    mlp = [shares.get(f"m{l}", 0.0) for l in range(layers)]
    return {"attention": attention, "MLP": mlp, "other": [shares.get("embed", 0.0), shares.get("bias", 0.0)]}


def layer_bars(shares: Mapping[str, float], layers: int) -> go.Figure:
    """Attention and MLP side by side for every layer, between embedding and biases; the total is a line."""
    import plotly.graph_objects as go

    found = by_layer(shares, layers)
    rows = [f"L{l}" for l in range(layers)]
    figure = go.Figure()
    hover = "%{x} %{fullData.name}<br>%{y:+.3f} logits<extra></extra>"
    figure.add_bar(
        x=["embed", "bias"],
        y=found["other"],
        name="embedding, biases",
        marker={"color": GREY},
        hovertemplate=hover,
    )
    figure.add_bar(
        x=rows, y=found["attention"], name="attention", marker={"color": BLUE}, hovertemplate=hover
    )
    if any(found["MLP"]):
        marker = {"color": ORANGE, "pattern": {"shape": "/"}}
        figure.add_bar(x=rows, y=found["MLP"], name="MLP", marker=marker, hovertemplate=hover)
    figure.update_xaxes(
        categoryorder="array", categoryarray=["embed", *rows, "bias"], tickangle=0 if layers < 20 else -60
    )
    figure.update_yaxes(title="logits")
    figure.update_layout(
        height=270,
        barmode="group",
        margin={"l": 50, "r": 10, "t": 10, "b": 40},
        legend={"orientation": "h", "y": 1.18},
    )
    return figure

"""Plotly figures of what speaks for a circuit: growing circuits, knock-outs, single nodes, estimates beside exact
effects. They draw what `circuits.evidence` keeps; names in it may be others', and are shown as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dashboard.figures.charts import BLUE, GREY, ORANGE, literal

if TYPE_CHECKING:
    import plotly.graph_objects as go

MARGIN = {"l": 60, "r": 15, "t": 10, "b": 45}
MARKS = {"embed": ("diamond", "#a21caf"), "head": ("circle", BLUE), "mlp": ("square", ORANGE)}
OTHER = ("triangle-up", GREY)


def size_curve(curve: Mapping[str, Any], *, circuit: tuple[int, float | None] | None = None) -> go.Figure:
    """Faithfulness at growing sizes with its 95% interval, beside random edges; a star at the circuit.

    `circuit`: how many edges it has, and the faithfulness of just these, where that is known.
    """
    import plotly.graph_objects as go

    sizes, ends = curve["n_edges"], curve["intervals"]
    random = curve["random"]
    figure = go.Figure()
    figure.add_scatter(
        x=[*sizes, *reversed(sizes)],
        y=[*(high for _, high in ends), *reversed([low for low, _ in ends])],
        mode="lines",
        fill="toself",
        fillcolor="rgba(37,99,235,0.15)",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    _line(figure, sizes, curve["faithfulness"], "strongest edges", BLUE, "circle", "solid")
    _line(figure, random["n_edges"], random["faithfulness"], "random edges", GREY, "x", "dash")
    figure.add_hline(y=1.0, line={"color": GREY, "width": 1, "dash": "dot"})
    if circuit is not None and circuit[0]:
        _at(figure, circuit[0], "" if circuit[1] is not None else "this circuit")
    if circuit is not None and circuit[0] and circuit[1] is not None:
        _star(figure, circuit[0], circuit[1])
    figure.update_xaxes(title="edges kept", type="log", **ticks(sizes))
    figure.update_yaxes(title="faithfulness", tickformat=".0%")
    return _sized(figure, 330)


def ticks(sizes: Sequence[int]) -> dict[str, Any]:
    """Where a logarithmic axis over these sizes is labelled: 1, 2, 5, 10 … in a short span, else powers of ten.

    Plotly's own labels of a long span are single digits between the powers, which are read as sizes.
    """
    low, high = max(1, min(sizes, default=1)), max(1, *sizes, 1)
    steps = (1, 2, 5) if high <= 100 * low else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    values = [step * 10**power for power in range(first, last + 1) for step in steps]
    return {"tickvals": values, "ticktext": [f"{value:,}" for value in values]}


def _star(figure: go.Figure, size: int, faithfulness: float) -> None:
    """The circuit itself, which need not have the edges that the curve takes."""
    figure.add_scatter(
        x=[size], y=[faithfulness], mode="markers", name="this circuit",
        marker={"symbol": "star", "size": 15, "color": ORANGE, "line": {"width": 1, "color": "white"}},
        hovertemplate="this circuit: %{x:,} edges<br>faithfulness %{y:.1%}<extra></extra>",
    )  # fmt: skip


def _at(figure: go.Figure, size: int, text: str) -> None:
    """A named line at a size; the axis is logarithmic, and annotations want its logarithm."""
    figure.add_vline(x=size, line={"color": ORANGE, "width": 1.5, "dash": "dash"})
    figure.add_annotation(
        x=math.log10(size), y=0.1, yref="paper", yanchor="bottom", xanchor="left", text=text, showarrow=False
    )


def _line(
    figure: go.Figure, x: Sequence[float], y: Sequence[float], name: str, colour: str, symbol: str, dash: str
) -> None:
    figure.add_scatter(
        x=list(x),
        y=list(y),
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2.5, "dash": dash},
        marker={"symbol": symbol, "size": 7},
        hovertemplate="%{x:,} edges<br>faithfulness %{y:.1%}<extra>" + name + "</extra>",
    )


def kept_curve(
    kept: Mapping[int, float], random: Mapping[int, Sequence[float]], *, shown: int | None = None
) -> go.Figure:
    """Faithfulness at the sizes that were evaluated, random sets of some of them, and a line at the size shown."""
    import plotly.graph_objects as go

    figure = go.Figure()
    sizes = sorted(kept)
    _line(figure, sizes, [kept[n] for n in sizes], "strongest edges", BLUE, "circle", "solid")
    floors = sorted(n for n, values in random.items() if values)
    if floors:
        means = [sum(random[n]) / len(random[n]) for n in floors]
        _line(figure, floors, means, "random edges", GREY, "x", "dash")
        figure.data[-1].error_y = {
            "type": "data",
            "symmetric": False,
            "array": [max(random[n]) - mean for n, mean in zip(floors, means, strict=True)],
            "arrayminus": [mean - min(random[n]) for n, mean in zip(floors, means, strict=True)],
        }
    figure.add_hline(y=1.0, line={"color": GREY, "width": 1, "dash": "dot"})
    if shown:
        _at(figure, shown, "shown")
    figure.update_xaxes(title="edges kept", type="log", **ticks(sizes))
    figure.update_yaxes(title="faithfulness", tickformat=".0%")
    return _sized(figure, 300)


def knock_outs(found: Mapping[str, Any], *, metric: str = "metric") -> go.Figure:
    """The circuit against the model, both without the same nodes: a complete circuit lies on the diagonal."""
    import plotly.graph_objects as go

    sets = found["sets"]
    figure = go.Figure()
    values = [row[side] for row in sets for side in ("circuit", "model")]
    _diagonal(figure, values)
    labels = [_some(row["knocked_out"]) for row in sets]
    figure.add_scatter(
        x=[row["model"] for row in sets],
        y=[row["circuit"] for row in sets],
        mode="markers",
        marker={
            "color": BLUE,
            "size": 9,
            "symbol": ["circle" if row["knocked_out"] else "star" for row in sets],
        },
        text=labels,
        hovertemplate="without %{text}<br>model %{x:.3f}<br>circuit %{y:.3f}<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title=f"{literal(metric)}, model without the nodes")
    figure.update_yaxes(title=f"{literal(metric)}, circuit without them")
    return _sized(figure, 330)


def _some(names: Sequence[str], most: int = 6) -> str:
    if not names:
        return "nothing (star)"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(literal, names[:most])) + more


def node_worth(found: Mapping[str, Any], *, top: int = 25) -> go.Figure:
    """What the circuit loses with each of its nodes, the largest losses first, with 95% intervals."""
    import plotly.graph_objects as go

    rows = sorted(found["nodes"], key=lambda row: -row["drop"])[:top]
    figure = go.Figure(
        go.Bar(
            x=[literal(row["node"]) for row in rows],
            y=[row["drop"] for row in rows],
            marker={"color": BLUE},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [max(0.0, row["interval"][1] - row["drop"]) for row in rows],
                "arrayminus": [max(0.0, row["drop"] - row["interval"][0]) for row in rows],
                "color": GREY,
            },
            hovertemplate="%{x}<br>loses %{y:.1%}<extra></extra>",
        )
    )
    figure.add_hline(y=0.01, line={"color": ORANGE, "width": 1, "dash": "dot"})
    figure.update_yaxes(title="share lost without it", tickformat=".0%")
    figure.update_xaxes(tickangle=-60)
    return _sized(figure, 330)


def overlap(found: Mapping[str, Any]) -> go.Figure:
    """The mean overlap of two resampled circuits with the middle 95%, beside that of random sets."""
    import plotly.graph_objects as go

    low, high = found["interval"]
    figure = go.Figure()
    for name, x, symbol, colour, error in (
        ("resampled examples", found["mean"], "circle", BLUE, (high - found["mean"], found["mean"] - low)),
        ("random sets", found["floor"], "x", GREY, (0.0, 0.0)),
    ):
        figure.add_scatter(
            x=[x], y=[name], mode="markers", showlegend=False,
            marker={"size": 13, "symbol": symbol, "color": colour},
            error_x={"type": "data", "symmetric": False, "array": [error[0]], "arrayminus": [error[1]], "thickness": 3},
            hovertemplate="%{y}<br>share %{x:.1%}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="shared edges of all edges (Jaccard)", range=[-0.03, 1.03], tickformat=".0%")
    figure.update_yaxes(autorange="reversed")
    figure = _sized(figure, 210)
    figure.update_layout(margin={**MARGIN, "l": 130})
    return figure


def agreement_scatter(
    points: Sequence[Mapping[str, Any]], *, unit: str = "effect", selected: str | None = None
) -> go.Figure:
    """Each node's estimate against its exact effect, by kind: colour and mark; on the dotted line they agree.

    `points`: name, kind, estimate and exact of each node. The first trace is the line, then comes one per kind in
    the order of `kinds_of`, and last a ring around the `selected` node.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    _diagonal(figure, [point[side] for point in points for side in ("estimate", "exact")])
    for kind in kinds_of(points):
        rows = [point for point in points if point["kind"] == kind]
        symbol, colour = MARKS.get(kind, OTHER)
        figure.add_scatter(
            x=[row["exact"] for row in rows],
            y=[row["estimate"] for row in rows],
            mode="markers",
            name=literal(kind),
            text=[literal(row["name"]) for row in rows],
            marker={"symbol": symbol, "color": colour, "size": 8, "opacity": 0.75},
            hovertemplate="%{text}<br>exact %{x:+.4f}<br>estimate %{y:+.4f}<extra></extra>",
        )
    for point in points:
        if point["name"] == selected:
            figure.add_scatter(
                x=[point["exact"]], y=[point["estimate"]], mode="markers+text",
                text=[literal(point["name"])], textposition="bottom right", showlegend=False, hoverinfo="skip",
                marker={"symbol": "circle-open", "size": 16, "color": "#a21caf", "line": {"width": 3}},
            )  # fmt: skip
    figure.update_xaxes(title=f"exact {literal(unit)}", zeroline=True)
    figure.update_yaxes(title=f"estimated {literal(unit)}", zeroline=True)
    return _sized(figure, 460)


def kinds_of(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kinds of nodes, each once."""
    return list(dict.fromkeys(point["kind"] for point in points))


def _diagonal(figure: go.Figure, values: Sequence[float]) -> None:
    """The line on which both numbers are equal; the figure's first trace."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", line={"color": GREY, "width": 1, "dash": "dot"},
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip


def _sized(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(height=height, margin=MARGIN, legend={"orientation": "h", "y": 1.12})
    return figure

"""What probes say of rows they were not fitted to: confusion, failures, told against true values, a layer in a plane.

Rows that go from data to a picture keep their number, so that a click can name them.

Letters: b judged row, c class, t value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dashboard.figures.charts import BLUE, GREY, ORANGE, literal
from dashboard.figures.grid import GridPayload, grid_payload
from probes.scores import told
from probes.store import Predictions

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from probes.labelled import Labelled

CLASSES = (
    (BLUE, "circle"), (ORANGE, "diamond"), ("#0f766e", "square"), ("#a21caf", "triangle-up"), ("#b45309", "x"),
    ("#64748b", "cross"), ("#be185d", "star"), ("#65a30d", "triangle-down"),
)  # fmt: skip
OTHERS = "others"
MARGIN = {"l": 60, "r": 15, "t": 10, "b": 45}
EARTH = 6371.0  # its mean radius in kilometres


def confusion(found: Predictions) -> GridPayload:
    """True class × told class: the share of the true class, on rows that the probe was not fitted to."""
    c = len(found.names)
    counts = np.zeros((c, c), dtype=int)
    np.add.at(counts, (found.y, told(found.decision)), 1)
    totals = counts.sum(1, keepdims=True)
    shares = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
    return grid_payload(
        shares, [f"{name} ({total})" for name, total in zip(found.names, totals[:, 0], strict=True)], found.names,
        title="Rows: the true class; columns: what the probe says", unit="share of the true class",
        texts=[f"{100 * s:.0f}%" if n else "" for s, n in zip(shares.ravel(), counts.ravel(), strict=True)],
        about=[f"{n} of {t} rows" for row, t in zip(counts, totals[:, 0], strict=True) for n in row],
        diverging=False, up=False, bound=1.0,
    )  # fmt: skip


def judged(found: Predictions, labelled: Labelled) -> pd.DataFrame:
    """One line per judged row, the worst first: its text, what is true, what is told, and by how much it is wrong.

    Classes: `error` is how much more the probe's score speaks for the told class than for the true one, 0 where it is
    right, and `sure` how clear the decision is. Values: the distance from the true ones, in kilometres where they are
    latitude and longitude.
    """
    import pandas as pd

    texts = [labelled.texts[t] for t in labelled.text[found.rows].tolist()]
    table: dict[str, Any] = {"row": found.rows, "text": texts}
    if labelled.spans is not None:
        ends = labelled.spans[found.rows].tolist()
        table["word"] = [text[a:b] for text, (a, b) in zip(texts, ends, strict=True)]
    if found.reads == "classes":
        said = told(found.decision)
        names = np.array(found.names)
        table |= {"true": names[found.y], "told": names[said]}
        each = np.arange(len(said))
        if found.decision.ndim == 1:
            table["error"] = np.where(said == found.y, 0.0, np.abs(found.decision))
            table["sure"] = np.abs(found.decision)
        else:
            first = found.decision[each, said]
            others = np.where(np.eye(len(names), dtype=bool)[said], -np.inf, found.decision).max(1)
            table |= {"error": first - found.decision[each, found.y], "sure": first - others}
    elif found.reads == "values":
        true, said = found.y.reshape(len(texts), -1), found.decision.reshape(len(texts), -1)
        for j, name in enumerate(found.names):
            table |= {f"true {name}": true[:, j], f"told {name}": said[:, j]}
        table["error"] = distance(true, said, found.names)
    else:
        raise ValueError("rows of dependency trees are not listed one by one")
    return pd.DataFrame(table).sort_values("error", ascending=False, kind="stable").reset_index(drop=True)


def is_map(names: Sequence[str]) -> bool:
    """Whether two values are latitude and longitude."""
    return list(names) == ["latitude", "longitude"]


def distance(
    true: NDArray[np.floating], said: NDArray[np.floating], names: Sequence[str]
) -> NDArray[np.floating]:
    """How far [b, t] is from [b, t]: along a great circle in kilometres for a map, else as the crow flies."""
    if not is_map(names):
        return np.linalg.norm(true - said, axis=1)
    (a, b), (c, d) = np.radians(true).T, np.radians(said).T
    c = np.clip(c, -np.pi / 2, np.pi / 2)
    h = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
    return 2 * EARTH * np.arcsin(np.sqrt(np.clip(h, 0, 1)))


def value_map(found: Predictions, texts: Sequence[str], unit: str, selected: int | None) -> go.Figure:
    """Two values: where rows are beside where the probe puts them; a row has one colour and mark in both."""
    from plotly.subplots import make_subplots

    up, across = (0, 1) if is_map(found.names) else (1, 0)
    figure = make_subplots(
        1, 2, subplot_titles=("where they are", "where the probe puts them"), shared_yaxes=True,
        horizontal_spacing=0.03,
    )  # fmt: skip
    edges = np.quantile(found.y[:, across], np.linspace(0, 1, 6)[1:-1])
    fifth = np.searchsorted(edges, found.y[:, across], side="right")
    limits = [_limits(found.y[:, i]) for i in (across, up)]
    for column, values in ((1, found.y), (2, found.decision)):
        inside = [np.clip(values[:, i], *ends) for i, ends in zip((across, up), limits, strict=True)]
        for band in range(5):
            mine = np.flatnonzero(fifth == band)
            colour, symbol = CLASSES[band]
            figure.add_scatter(
                x=inside[0][mine], y=inside[1][mine], mode="markers", showlegend=False, row=1, col=column,
                marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.8},
                text=[literal(texts[i]) for i in mine.tolist()], customdata=found.rows[mine],
                hovertemplate="%{text}<br>%{y:.1f}, %{x:.1f}<extra></extra>",
            )  # fmt: skip
        at = np.flatnonzero(found.rows == selected)
        if len(at):
            figure.add_scatter(
                x=inside[0][at], y=inside[1][at], mode="markers", showlegend=False, row=1, col=column, hoverinfo="skip",
                marker={"symbol": "circle-open", "size": 18, "color": "#a21caf", "line": {"width": 3}},
            )  # fmt: skip
        figure.update_xaxes(title=_with(found.names[across], unit), range=limits[0], row=1, col=column)
    figure.update_yaxes(range=limits[1])
    figure.update_yaxes(title=_with(found.names[up], unit), row=1, col=1)
    figure.update_layout(height=400, margin={**MARGIN, "t": 34})
    return figure


def value_scatter(
    found: Predictions, value: int, texts: Sequence[str], unit: str, selected: int | None
) -> go.Figure:
    """One value: told against true, with the line on which both are equal."""
    import plotly.graph_objects as go

    true = found.y.reshape(len(found.rows), -1)[:, value]
    said = found.decision.reshape(len(found.rows), -1)[:, value]
    low, high = _limits(true)
    figure = go.Figure()
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", line={"color": GREY, "width": 1, "dash": "dot"},
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=true, y=said, mode="markers", showlegend=False, text=[literal(text) for text in texts], customdata=found.rows,
        marker={"color": BLUE, "size": 6, "opacity": 0.7},
        hovertemplate="%{text}<br>true %{x:.2f}, told %{y:.2f}<extra></extra>",
    )  # fmt: skip
    at = np.flatnonzero(found.rows == selected)
    figure.add_scatter(
        x=true[at], y=said[at], mode="markers", showlegend=False, hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 18, "color": "#a21caf", "line": {"width": 3}},
    )  # fmt: skip
    figure.update_xaxes(title=_with(f"true {found.names[value]}", unit))
    figure.update_yaxes(title=_with(f"told {found.names[value]}", unit))
    figure.update_layout(height=400, margin=MARGIN)
    return figure


def _limits(values: NDArray[np.floating]) -> tuple[float, float]:
    margin = 0.05 * (float(values.max() - values.min()) or 1.0)
    return float(values.min()) - margin, float(values.max()) + margin


def _with(name: str, unit: str) -> str:
    return literal(f"{name} ({unit})" if unit else name)


def projection(
    points: NDArray[np.floating], rows: NDArray[np.integer], labels: Sequence[str] | NDArray[np.floating],
    texts: Sequence[str], axes: tuple[str, str], *, name: str = "",
) -> go.Figure:  # fmt: skip
    """Rows [b, 2] in a plane: classes by colour and mark, numbers by shade.

    Args:
        labels: a class for each row, or a number named `name`.
        texts: what a row says when one points at it.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    shown = [literal(text if len(text) <= 90 else text[:89] + "…") for text in texts]
    name, axes = literal(name), (literal(axes[0]), literal(axes[1]))
    common: dict[str, Any] = {"mode": "markers"}
    if isinstance(labels, np.ndarray):
        figure.add_scatter(
            x=points[:, 0], y=points[:, 1], text=shown, customdata=rows, showlegend=False, **common,
            marker={"color": labels, "colorscale": "Cividis", "size": 6, "colorbar": {"title": name}},
            hovertemplate="%{text}<br>" + name + " %{marker.color:.2f}<extra></extra>",
        )  # fmt: skip
    else:
        for label, mine, (colour, symbol) in _by_class(labels):
            figure.add_scatter(
                x=points[mine, 0], y=points[mine, 1], name=literal(label), text=[shown[i] for i in mine],
                customdata=rows[mine],
                marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75}, **common,
                hovertemplate="%{text}<extra>" + literal(label) + "</extra>",
            )  # fmt: skip
    figure.update_xaxes(title=axes[0])
    figure.update_yaxes(title=axes[1])
    figure.update_layout(height=420, margin=MARGIN, legend={"orientation": "h", "y": 1.12})
    return figure


def _by_class(labels: Sequence[str]) -> list[tuple[str, NDArray[np.intp], tuple[str, str]]]:
    """Classes with their rows and look, the most frequent first; more than there are looks for are one."""
    names, counts = np.unique(np.array(labels), return_counts=True)
    order = [str(name) for name in names[np.argsort(-counts, kind="stable")]]
    kept = order if len(order) <= len(CLASSES) else order[: len(CLASSES) - 1]
    given = np.array(labels)
    found = [(name, np.flatnonzero(given == name), look) for name, look in zip(kept, CLASSES, strict=False)]
    if len(kept) < len(order):
        found.insert(0, (OTHERS, np.flatnonzero(~np.isin(given, kept)), (GREY, "circle-open")))
    return found

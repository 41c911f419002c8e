"""Scores of probes by layer and position beside their floors, and what steering along them does.

Letters: k position, l layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboard.figures.charts import BLUE, GREY, ORANGE, literal
from dashboard.figures.grid import GridPayload, grid_payload

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


METRICS = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "macro_f1": "macro F1",
    "r2": "R²", "uuas": "UUAS", "distance_spearman": "distance Spearman", "root_accuracy": "root accuracy",
    "depth_spearman": "depth Spearman",
}  # fmt: skip
FLOORS = {
    "control": "control task", "floor_majority": "most common class", "floor_mean": "mean",
    "floor_random-init": "random weights", "floor_layer-0": "embeddings", "floor_surface": "character n-grams",
    "floor_behaviour": "the model's own answer", "floor_likelihood": "the text's likelihood",
    "floor_group-mean": "mean of the group", "floor_linear-chain": "linear chain",
}  # fmt: skip
LINES = (
    (ORANGE, "dash"), (GREY, "dot"), ("#a21caf", "dashdot"), ("#0f766e", "longdash"), ("#b45309", "dot"),
    ("#64748b", "dash"), ("#be185d", "dashdot"),
)  # fmt: skip
MARGIN = {"l": 60, "r": 15, "t": 10, "b": 45}
SIMPLEST = ("floor_majority", "floor_mean")
MOST_TICKS = 20
SCORE, ABOVE, SELECTIVITY = "score", "above the best floor", "selectivity"


def metric_name(metric: str) -> str:
    """A metric as a person writes it."""
    return METRICS.get(metric, metric.replace("_", " "))


def floors_of(curve: pd.DataFrame) -> dict[str, str]:
    """The columns that hold a floor or the control task, with their names."""
    names = [name for name in curve.columns if name.startswith("floor_")] + ["control"]
    return {
        str(name): FLOORS.get(str(name), str(name).removeprefix("floor_").replace("-", " "))
        for name in names
        if name in curve.columns and bool(curve[name].notna().to_numpy().any())
    }


def best_floor(row: Any, names: Mapping[str, str]) -> tuple[str, float] | None:
    """The highest of a row's floors, by name; the control task is none of them."""
    values = {name: float(row[name]) for name in names if name != "control" and not math.isnan(row[name])}
    if not values:
        return None
    best = max(values, key=lambda name: (values[name], name in SIMPLEST))
    return names[best], values[best]


def verdict(row: Any, floor: tuple[str, float] | None) -> tuple[bool, str]:
    """Whether a score's whole interval lies above the best floor, and a sentence that says so."""
    if floor is None:
        return False, "No floor was measured: the score alone says little."
    name, value = floor
    if row.low > value:
        return True, f"The whole interval lies above the best floor ({name}, {value:.3f})."
    if row.score > value:
        return (
            False,
            f"The interval reaches down to the best floor ({name}, {value:.3f}): no evidence on these rows.",
        )
    return (
        False,
        f"The score is not above the best floor ({name}, {value:.3f}): no evidence that this is encoded.",
    )


def score_grid(
    curves: Mapping[str, pd.DataFrame], by: str, *, title: str
) -> tuple[GridPayload, list[str], list[int]]:
    """Positions × layers: the score, what it is above the best floor, or its selectivity.

    Args:
        curves: position → its rows, one per layer.

    Returns:
        The picture, and the positions [k] and layers [l] of its rows and columns.
    """
    layers = sorted({int(layer) for curve in curves.values() for layer in curve.layer.dropna()})
    values = np.full((len(curves), len(layers)), np.nan)
    about = [""] * values.size
    for r, curve in enumerate(curves.values()):
        names = floors_of(curve)
        placed: pd.DataFrame = curve.loc[curve.layer.notna()]
        for row in placed.to_dict("records"):
            c, floor = layers.index(int(row["layer"])), best_floor(row, names)
            beaten = float("nan") if floor is None else row["score"] - floor[1]
            values[r, c] = {SCORE: row["score"], ABOVE: beaten, SELECTIVITY: row["selectivity"]}[by]
            lines = [
                f"{metric_name(row['metric'])} {row['score']:.3f}, 95% {row['low']:.3f} to {row['high']:.3f}"
            ]
            lines += [
                f"{label} {row[name]:.3f}" for name, label in names.items() if not math.isnan(row[name])
            ]
            about[r * len(layers) + c] = "; ".join([*lines, *([row["note"]] if row["note"] else [])])
    texts = ["" if math.isnan(v) else f"{v:+.2f}" if by != SCORE else f"{v:.2f}" for v in values.ravel()]
    signed = by != SCORE or bool(np.nanmin(values) < 0)
    payload = grid_payload(
        values, [f"position {position}" for position in curves], [f"L{layer}" for layer in layers], title=title,
        unit=by, texts=texts, about=about, diverging=signed, flip=signed, up=False, bound=1.0 if by == SCORE else None,
    )  # fmt: skip
    return payload, list(curves), layers


def span(values: list[float]) -> list[float] | None:
    """From the least to the greatest of these and a little beyond, for an axis; None where none is a number."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return None
    room = 0.06 * (max(known) - min(known)) or 0.05
    return [min(known) - room, max(known) + room]


def layer_curve(curve: pd.DataFrame, inside: pd.Series | None, selected: str | None) -> go.Figure:
    """The score of every place with its 95% interval above its floors; the selected place has a ring."""
    import plotly.graph_objects as go

    by_layer = bool(curve.layer.notna().all()) and not curve.layer.duplicated().any()
    xs: list[Any] = (
        [int(layer) for layer in curve.layer] if by_layer else [literal(site) for site in curve.site]
    )
    figure = go.Figure()
    low, high = curve.low.fillna(curve.score), curve.high.fillna(curve.score)
    figure.add_scatter(
        x=[*xs, *reversed(xs)], y=[*high, *reversed(list(low))], mode="lines", fill="toself",
        fillcolor="rgba(37,99,235,0.15)", line={"width": 0}, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=xs, y=list(curve.score), name="probe", mode="lines+markers", line={"color": BLUE, "width": 2.5},
        customdata=np.stack([low, high], 1), marker={"size": 6},
        hovertemplate="%{x}: %{y:.3f} (95% %{customdata[0]:.3f} to %{customdata[1]:.3f})<extra>probe</extra>",
    )  # fmt: skip
    for (name, label), (colour, dash) in zip(floors_of(curve).items(), LINES, strict=False):
        figure.add_scatter(
            x=xs, y=list(curve[name]), name=label, mode="lines" if len(xs) > 1 else "markers",
            line={"color": colour, "width": 1.6, "dash": dash},
            hovertemplate="%{x}: %{y:.3f}<extra>" + label + "</extra>",
        )  # fmt: skip
    if inside is not None and by_layer:
        figure.add_scatter(
            x=[max(xs) + 1], y=[inside.score], name="layer chosen inside the folds", mode="markers",
            marker={"symbol": "square", "size": 9, "color": BLUE},
            error_y={
                "type": "data", "symmetric": False, "array": [inside.high - inside.score],
                "arrayminus": [inside.score - inside.low], "color": BLUE,
            },
            hovertemplate="%{y:.3f}<extra>layer chosen inside the folds: " + str(inside.layers) + "</extra>",
        )  # fmt: skip
    for _, row in curve[curve.site == selected].iterrows():
        figure.add_scatter(
            x=[int(row.layer) if by_layer else literal(row.site)], y=[row.score], mode="markers", showlegend=False,
            hoverinfo="skip", marker={"symbol": "circle-open", "size": 17, "color": "#a21caf", "line": {"width": 3}},
        )  # fmt: skip
    if by_layer:
        step = -(-len(xs) // MOST_TICKS)
        told = {x: str(x) for x in xs[::step]} | ({} if inside is None else {max(xs) + 1: "chosen"})
        figure.update_xaxes(tickvals=list(told), ticktext=list(told.values()))
    figure.update_xaxes(title="layer" if by_layer else "site")
    shown = [*low, *high, *curve.score, *(v for name in floors_of(curve) for v in curve[name])]
    shown += [] if inside is None else [inside.low, inside.high]
    figure.update_yaxes(title=metric_name(str(curve.metric.iloc[0])), range=span([float(v) for v in shown]))
    above = {
        "orientation": "h",
        "y": 1.02,
        "yanchor": "bottom",
        "x": 0,
        "xanchor": "left",
    }  # in one line or two
    figure.update_layout(height=380, margin=MARGIN, legend=above)
    return figure


def dose_curve(table: pd.DataFrame, measure: str) -> go.Figure:
    """What is measured at each dose, its mean over prompts with the 95% interval."""
    import plotly.graph_objects as go

    figure = go.Figure()
    doses = list(table.dose)
    figure.add_scatter(
        x=[*doses, *reversed(doses)], y=[*table.high, *reversed(list(table.low))], mode="lines", fill="toself",
        fillcolor="rgba(37,99,235,0.15)", line={"width": 0}, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=doses, y=list(table["mean"]), mode="lines+markers", line={"color": BLUE, "width": 2.5}, showlegend=False,
        hovertemplate="dose %{x:+g}: %{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="dose, in standard deviations", zeroline=True)
    figure.update_yaxes(title=measure)
    figure.update_layout(height=280, margin=MARGIN)
    return figure

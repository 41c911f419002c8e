"""The layer curve: a score per layer with its interval, its floors, and what was chosen.

Blue line and band: the probe and its 95% interval. Other lines: floors, each with a dash and a name at its end. Ring:
the best layer, chosen after the fact. Whisker at the right: the layer chosen inside the cross-validation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probes.drawing.svg import COLOURS, DASHES, Panel, n, sheet, spread, ticks, words

if TYPE_CHECKING:
    import pandas as pd

WIDTH, HEIGHT = 860.0, 456.0
LEFT, TOP, BOTTOM, RIGHT = 64.0, 100.0, 56.0, 210.0
NAMES = {"control": "control task", "floor_random-init": "random weights", "floor_layer-0": "embeddings",
         "floor_surface": "character n-grams", "floor_behaviour": "the model's answer"}  # fmt: skip
SCORES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "macro_f1": "macro F1",
          "r2": "R²", "uuas": "UUAS", "distance_spearman": "distance Spearman", "root_accuracy": "root accuracy",
          "depth_spearman": "depth Spearman"}  # fmt: skip


@dataclass(frozen=True)
class _Line:
    name: str
    xs: list[float]
    ys: list[float]
    colour: int
    dash: str


def draw(curve: pd.DataFrame, inside: pd.Series | None, title: str, note: str) -> str:
    """The picture of one target's rows (`Run.curve`, `Run.inside`)."""
    series = _series(curve)
    by_layer = bool(curve.layer.notna().all()) and not any(
        rows.layer.duplicated().any() for _, rows in series
    )
    x_of = {i: float(curve.layer[i]) if by_layer else float(p) for p, i in enumerate(curve.index)}
    lines = _floors(series[0][1], x_of)
    low, high = _range(curve, inside, lines)
    xs = list(x_of.values())
    edge = 0.5 if len(xs) == 1 else 0.0
    panel = Panel(
        LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, (min(xs) - edge, max(xs) + edge), (low, high)
    )
    x_ticks = [t for t in ticks(min(xs), max(xs), 10) if t == int(t)]
    metric = SCORES.get(str(curve.metric.iloc[0]), str(curve.metric.iloc[0]))
    parts = panel.grid(
        "layer" if by_layer else "site, in the order of the table", metric, x_ticks, ticks(low, high)
    )
    parts += [part for line in lines for part in _floor(panel, line)]
    several = len(series) > 1
    labels: list[tuple[float, str, int]] = [(line.ys[-1], line.name, line.colour) for line in lines]
    for i, (name, rows) in enumerate(series):
        parts += _probe(panel, rows, x_of, i)
        labels.append((float(rows.score.iloc[-1]), name if several else "probe", 0 if not several else i))
    parts += _labels(panel, labels)
    parts += _best(panel, curve, x_of)
    if inside is not None:
        parts += _inside(panel, inside)
    return sheet(WIDTH, HEIGHT, title, note, parts)


def _series(curve: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each line: one per position, and per sort of site."""
    kinds = curve.site.str.replace(r"^blocks\.\d+\.", "", regex=True) + " " + curve.position
    return [
        (str(name).removeprefix("hook_").strip(), rows) for name, rows in curve.groupby(kinds, sort=False)
    ]


def _floors(rows: pd.DataFrame, x_of: dict[Any, float]) -> list[_Line]:
    found = []
    names = [name for name in rows.columns if name.startswith("floor_")] + ["control"]
    for name in names:
        if bool(rows[name].notna().to_numpy().any()):
            place = 1 + len(found) % (COLOURS - 1)
            told = str(NAMES.get(name, name.removeprefix("floor_")))
            ys = [float(y) for y in rows[name]]
            found.append(_Line(told, [x_of[i] for i in rows.index], ys, place, DASHES[place]))
    return found


def _range(curve: pd.DataFrame, inside: pd.Series | None, lines: list[_Line]) -> tuple[float, float]:
    values = [*curve.low, *curve.high, *curve.score, *(y for line in lines for y in line.ys)]
    values += [] if inside is None else [inside.low, inside.high]
    values = [v for v in values if not math.isnan(v)] or [0.0, 1.0]
    low, high = max(min(values), -0.5), min(max(values), 1.0)
    margin = 0.06 * max(high - low, 0.05)
    return low - margin, min(high + margin, 1.02) if high <= 1 else high + margin


def _probe(panel: Panel, rows: pd.DataFrame, x_of: dict[Any, float], colour: int) -> list[str]:
    xs = [x_of[i] for i in rows.index]
    low, high = [max(v, panel.y[0]) for v in rows.low], [max(v, panel.y[0]) for v in rows.high]
    outline = [*zip(xs, high, strict=True), *reversed(list(zip(xs, low, strict=True)))]
    points = list(zip(xs, [max(v, panel.y[0]) for v in rows.score], strict=True))
    parts = [f'<path class="band f{colour}" d="{panel.path(outline)}Z"/>',
             f'<path class="line s{colour}" d="{panel.path(points)}"/>']  # fmt: skip
    if len(xs) == 1:
        (px, a), (_, b) = panel.at(xs[0], low[0]), panel.at(xs[0], high[0])
        parts.append(
            f'<path class="whisker s{colour}" d="M{n(px)} {n(a)}V{n(b)}M{n(px - 4)} {n(a)}h8M{n(px - 4)} {n(b)}h8"/>'
        )
    for (x, y), (_, row) in zip(points, rows.iterrows(), strict=True):
        px, py = panel.at(x, y)
        about = f"{row.site}: {row.score:.3f} ({row.low:.3f} to {row.high:.3f})"
        parts.append(
            f'<circle class="f{colour}" cx="{n(px)}" cy="{n(py)}" r="2.6"><title>{about}</title></circle>'
        )
    return parts


def _floor(panel: Panel, line: _Line) -> list[str]:
    clipped = [(x, max(y, panel.y[0])) for x, y in zip(line.xs, line.ys, strict=True)]
    if len(clipped) == 1:  # a lone site: across the panel
        clipped = [(panel.x[0], clipped[0][1]), (panel.x[1], clipped[0][1])]
    return [
        f'<path class="line floor s{line.colour}" stroke-dasharray="{line.dash}" d="{panel.path(clipped)}">'
        f"<title>{line.name}</title></path>"
    ]


def _labels(panel: Panel, labels: list[tuple[float, str, int]]) -> list[str]:
    right = panel.left + panel.width
    labels = [(y, name, colour) for y, name, colour in labels if not math.isnan(y)]
    told = [panel.at(panel.x[1], max(y, panel.y[0]))[1] for y, _, _ in labels]
    places = spread(told, 16, panel.top + 6, panel.top + panel.height)
    parts = []
    for (y, name, colour), at, place in zip(labels, told, places, strict=True):
        value = f"{name} {f'{round(y, 2) + 0.0:.2f}'.replace('-', '−')}"
        parts.append(f'<path class="leader" d="M{n(right + 3)} {n(at)}L{n(right + 34)} {n(place)}h4"/>')
        parts.append(words(right + 42, place + 4, value, f"f{colour}"))
    return parts


def _best(panel: Panel, curve: pd.DataFrame, x_of: dict[Any, float]) -> list[str]:
    parts = []
    for i, row in curve[curve.chosen_after_the_fact].iterrows():
        px, py = panel.at(x_of[i], row.score)
        layer = "" if row.layer is None or str(row.layer) == "<NA>" else f"layer {row.layer}, "
        side = (
            "end" if px > panel.left + panel.width - 160 else "start" if px < panel.left + 160 else "middle"
        )
        about = f"{layer}{row.score:.3f}: best, chosen after the fact"
        parts.append(f'<circle class="ring" cx="{n(px)}" cy="{n(py)}" r="7"/>')
        parts.append(words(px, max(py - 14, panel.top - 4), about, "", side))
    return parts


def _inside(panel: Panel, row: pd.Series) -> list[str]:
    x = panel.left + panel.width + 16
    (_, a), (_, b), (_, c) = (panel.at(0, max(v, panel.y[0])) for v in (row.low, row.high, row.score))
    about = (
        f"layer chosen inside the folds ({row.layers}): {row.score:.3f}, 95% {row.low:.3f} to {row.high:.3f}"
    )
    return [
        f'<path class="whisker s0" d="M{n(x)} {n(a)}V{n(b)}M{n(x - 4)} {n(a)}h8M{n(x - 4)} {n(b)}h8"/>',
        f'<rect class="f0" x="{n(x - 3.5)}" y="{n(c - 3.5)}" width="7" height="7"><title>{about}</title></rect>',
        words(16, 62, f"■ {about}", "f0"),
    ]

"""Told values against true ones: two maps side by side for two values, else a panel per value with its diagonal.

In the maps a row has the same colour on both sides, by where it truly is along the horizontal value, so that one sees
what the probe puts where. Both maps have the same scale; what is told outside the frame is drawn at its edge.
"""

from __future__ import annotations

import numpy as np

from probes.drawing.svg import Panel, n, sheet, shortened, ticks, words
from probes.store import Predictions

SIDE, GAP, LEFT, TOP, BOTTOM = 360.0, 70.0, 70.0, 112.0, 56.0
MOST = 3000  # points drawn; a fixed choice of rows beyond that
BANDS = ("f3", "f1", "f4", "f2", "f0")
NORTH = ("lat", "latitude", "north", "y")


def draw(found: Predictions, title: str, note: str, unit: str = "") -> str:
    """The picture of [b, t] told and true values."""
    rows = np.arange(len(found.y))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
        note = f"{note}; {MOST} of {len(found.y)} rows drawn"
    true, told = found.y[rows], found.decision[rows]
    if len(found.names) == 2:
        return _map(true, told, found.names, title, note, unit)
    return _panels(true, told, found.names, title, note, unit)


def _map(true: np.ndarray, told: np.ndarray, names: tuple[str, ...], title: str, note: str, unit: str) -> str:
    up = next(
        (i for i, name in enumerate(names) if name.lower() in NORTH or name.lower().startswith("lat")), 0
    )
    across = 1 - up
    x, y = _bounds(true[:, across]), _bounds(true[:, up])
    wide = SIDE * 1.25
    high = min(max(wide * (y[1] - y[0]) / (x[1] - x[0]), 180.0), SIDE) if unit == "degrees" else SIDE
    parts = []
    edges = np.quantile(true[:, across], np.linspace(0, 1, len(BANDS) + 1)[1:-1])
    band = np.searchsorted(edges, true[:, across], side="right")
    for side, (values, label) in enumerate(((true, "where they are"), (told, "where the probe puts them"))):
        panel = Panel(LEFT + side * (wide + GAP), TOP, wide, high, x, y)
        suffix = f" ({unit})" if unit else ""
        parts += panel.grid(f"{names[across]}{suffix}", f"{names[up]}{suffix}", ticks(*x, 6), ticks(*y, 5))
        parts.append(words(panel.left + wide / 2, TOP - 28, label, "", "middle"))
        for (px, py), colour in zip(values[:, [across, up]].tolist(), band.tolist(), strict=True):
            at = panel.at(min(max(px, x[0]), x[1]), min(max(py, y[0]), y[1]))
            parts.append(f'<circle class="point {BANDS[colour]}" cx="{n(at[0])}" cy="{n(at[1])}" r="2.4"/>')
    parts.append(
        words(
            16,
            62,
            f"colour: true {names[across]}, in fifths from the left to the right of the left map",
            "faint",
        )
    )
    return sheet(LEFT + 2 * wide + GAP + 24, TOP + high + BOTTOM, title, note, parts)


def _panels(
    true: np.ndarray, told: np.ndarray, names: tuple[str, ...], title: str, note: str, unit: str
) -> str:
    parts = []
    for j, name in enumerate(names):
        bounds = _bounds(true[:, j])
        panel = Panel(LEFT + j * (SIDE + GAP), TOP, SIDE, SIDE, bounds, bounds)
        suffix = f" ({unit})" if unit else ""
        label = f"told {shortened(name, 30)}{suffix}"
        parts += panel.grid(
            f"true {shortened(name, 30)}{suffix}", label, ticks(*bounds, 6), ticks(*bounds, 6)
        )
        parts.append(
            f'<path class="diagonal" d="{panel.path([(bounds[0], bounds[0]), (bounds[1], bounds[1])])}"/>'
        )
        for x, y in zip(true[:, j].tolist(), told[:, j].tolist(), strict=True):
            px, py = panel.at(x, min(max(y, bounds[0]), bounds[1]))
            parts.append(f'<circle class="point f0" cx="{n(px)}" cy="{n(py)}" r="2.4"/>')
    width = max(LEFT + len(names) * (SIDE + GAP), 620.0)
    return sheet(width, TOP + SIDE + BOTTOM, title, note, parts)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low or 1.0)
    return low - margin, high + margin

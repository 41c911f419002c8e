"""The confusion matrix: of the rows of each class, the share that is told to be of each."""

from __future__ import annotations

import numpy as np

from probes.drawing.svg import n, sheet, shortened, words
from probes.scores import told
from probes.store import Predictions

CELL, TOP, LETTER = 46.0, 112.0, 6.6


def draw(found: Predictions, title: str, note: str) -> str:
    """Rows: the true class; columns: the class that a probe told which was not fitted to the row."""
    c = len(found.names)
    counts = np.zeros((c, c), dtype=int)
    np.add.at(counts, (found.y, told(found.decision)), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [shortened(name, 18) for name in found.names]
    cell = 64.0 if c <= 4 else CELL if c <= 12 else 34.0
    left = 40 + LETTER * max(map(len, names)) + 60
    slanted = c > 3 and max(map(len, names)) > 6
    top = TOP + (LETTER * 0.6 * max(map(len, names)) if slanted else 0)
    wide = max(cell, LETTER * max(map(len, names)) + 14) if not slanted else cell
    parts = []
    for i in range(c):
        y = top + i * cell
        parts.append(words(left - 10, y + cell / 2 + 4, f"{names[i]} ({counts[i].sum()})", "", "end"))
        for j in range(c):
            x = left + j * wide
            share = float(shares[i, j])
            dark = " on" if share > 0.55 else ""
            about = f"{found.names[i]} told to be {found.names[j]}: {counts[i, j]} of {counts[i].sum()}"
            percent = f"{100 * share:.0f}%" if counts[i, j] else "·"
            parts.append(
                f'<rect class="cell" x="{n(x)}" y="{n(y)}" width="{n(wide)}" height="{n(cell)}" '
                f'fill-opacity="{share:.3f}"><title>{_safe(about)}</title></rect>'
            )
            parts.append(
                words(
                    x + wide / 2,
                    y + cell / 2 + 4,
                    percent,
                    f"{'faint' if not counts[i, j] else ''}{dark}".strip(),
                    "middle",
                )
            )
    for j, name in enumerate(names):
        x = left + (j + 0.5) * wide
        turn = f' transform="rotate(-40 {n(x)} {n(top - 10)})"' if slanted else ""
        parts.append(words(x, top - 10, name, "", "start" if slanted else "middle", turn))
    parts.append(
        f'<rect class="border" x="{n(left)}" y="{n(top)}" width="{n(c * wide)}" height="{n(c * cell)}"/>'
    )
    parts.append(words(16, top - 10, "true class", "faint"))
    parts.append(words(left, 66, "told to be", "faint"))
    width = max(
        left + c * wide + 24 + (60 if slanted else 0), 16 + LETTER * max(len(title) * 1.2, len(note)) + 16
    )
    return sheet(width, top + c * cell + 24, title, note, parts)


def _safe(value: str) -> str:
    from probes.drawing.svg import text_of

    return text_of(value)

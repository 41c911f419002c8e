"""Parts of a picture: the sheet, a panel with axes, points and lines in its units.

Colours are plain rules that follow `prefers-color-scheme`; what a colour tells, a dash, a shape or a word tells too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

Number = float | int

COLOURS = 7
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 3", "12 4")


def sheet(width: Number, height: Number, title: str, note: str, parts: Sequence[str]) -> str:
    """One `<svg>` element with a title, a line below it, and parts."""
    told = text_of(title)
    return "\n".join([
        f'<svg class="probes" xmlns="http://www.w3.org/2000/svg" width="{n(width)}" height="{n(height)}" '
        f'viewBox="0 0 {n(width)} {n(height)}" role="img" aria-label="{told}">',
        f"<title>{told}</title>",
        f"<style>{stylesheet()}</style>",
        f'<rect class="paper" width="{n(width)}" height="{n(height)}"/>',
        words(16, 24, title, "title"),
        words(16, 42, note, "faint"),
        *parts,
        "</svg>",
        "",
    ])  # fmt: skip


def stylesheet() -> str:
    """The rules of all pictures."""
    return (files("probes.drawing") / "picture.css").read_text(encoding="utf-8").strip()


def text_of(value: str) -> str:
    """Any text as it may stand in XML."""
    return escape("".join(c if c.isprintable() else " " for c in value), quote=True)


def words(x: Number, y: Number, value: str, kind: str = "", anchor: str = "start", extra: str = "") -> str:
    """A line of text."""
    kept = f' class="{kind}"' if kind else ""
    return f'<text{kept} x="{n(x)}" y="{n(y)}" text-anchor="{anchor}"{extra}>{text_of(value)}</text>'


def shortened(value: str, most: int) -> str:
    """At most so many characters."""
    return value if len(value) <= most else value[: most - 1] + "…"


def n(value: Number) -> str:
    """A coordinate."""
    return f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Panel:
    """A rectangle of the sheet with units of its own.

    Args:
        left, top, width, height: on the sheet.
        x, y: the ranges that it shows.
    """

    left: Number
    top: Number
    width: Number
    height: Number
    x: tuple[Number, Number]
    y: tuple[Number, Number]

    def at(self, x: Number, y: Number) -> tuple[Number, Number]:
        """A point's place on the sheet."""
        (x0, x1), (y0, y1) = self.x, self.y
        return (
            self.left + (x - x0) / (x1 - x0) * self.width,
            self.top + self.height - (y - y0) / (y1 - y0) * self.height,
        )

    def path(self, points: Sequence[tuple[Number, Number]]) -> str:
        """The `d` of a line through points; gaps where a coordinate is NaN."""
        parts, begun = [], False
        for x, y in points:
            if math.isnan(x) or math.isnan(y):
                begun = False
                continue
            px, py = self.at(x, y)
            parts.append(f"{'L' if begun else 'M'}{n(px)} {n(py)}")
            begun = True
        return "".join(parts)

    def grid(
        self, x_label: str, y_label: str, x_ticks: Sequence[Number], y_ticks: Sequence[Number]
    ) -> list[str]:
        """Lines, numbers and names of both axes."""
        lines = []
        for tick in y_ticks:
            px, py = self.at(self.x[0], tick)
            lines.append(f'<path class="grid" d="M{n(px)} {n(py)}H{n(self.left + self.width)}"/>')
            lines.append(words(px - 8, py + 4, number(tick), "faint", "end"))
        bottom = self.top + self.height
        for tick in x_ticks:
            px, _ = self.at(tick, self.y[0])
            lines.append(f'<path class="axis" d="M{n(px)} {n(bottom)}v4"/>')
            lines.append(words(px, bottom + 18, number(tick), "faint", "middle"))
        lines.append(f'<path class="axis" d="M{n(self.left)} {n(bottom)}H{n(self.left + self.width)}"/>')
        lines.append(words(self.left + self.width / 2, bottom + 36, x_label, "", "middle"))
        lines.append(words(self.left, self.top - 10, y_label, ""))
        return lines


def number(value: Number) -> str:
    """A tick's number, with a proper minus."""
    text = f"{value:.10g}"
    return text.replace("-", "−")


def ticks(low: Number, high: Number, about: int = 6) -> list[Number]:
    """Round numbers from low to high."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def spread(places: Sequence[Number], gap: Number, low: Number, high: Number) -> list[Number]:
    """Places moved apart so that neighbours are `gap` apart, between low and high where there is room."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    found = list(places)
    at = low - gap
    for i in order:
        found[i] = at = max(found[i], at + gap)
    at = high + gap
    for i in reversed(order):
        found[i] = at = min(found[i], at - gap)
    return found

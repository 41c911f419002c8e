"""Tables for people: Markdown, and figures as they stand in its cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column is text."""
    return [
        f"| {' | '.join(header)} |",
        f"|{'|'.join(['---'] + ['---:'] * (len(header) - 1))}|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def number(value: float | None) -> str:
    """Three digits after the point, or two of what is larger than one."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 1.0005 else f"{value:.2f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{round(100 * value, 1) + 0.0:.1f}%"


def ends(interval: Sequence[float | None], shown: Any = number) -> str:
    """An interval in square brackets."""
    return f"[{shown(interval[0])}, {shown(interval[1])}]"

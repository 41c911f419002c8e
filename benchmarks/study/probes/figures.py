"""Figures of probes as the page tells them."""

from __future__ import annotations

from typing import Any

from benchmarks.study.cells import ends, number

COMMAND = "`python -m benchmarks.study probes --show {}`"


def told(row: dict[str, Any]) -> str:
    """A score with its interval."""
    return f"{number(row['score'])} {ends((row.get('low'), row.get('high')))}"


def inside(found: dict[str, Any]) -> str:
    """The score of the layers that the folds chose."""
    row = found["inside"]
    return "–" if row is None else f"{told(row)} (layers {row['layers']})"

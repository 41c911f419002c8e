"""Measured figures as files: JSON for machines, and a page of tables for people."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.measuring import Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks.md"
PACKAGES = ("torch", "transformers", "transformer-lens")
INTRODUCTION = """\
# Benchmarks

Made by `make bench`; do not edit. Every figure is a ratio measured within one run, on one thread, in CPU time: each
case between two runs of its baseline, the median of several rounds, with the lowest and highest round beside it.
"""


def environment() -> dict[str, str]:
    """What the figures were measured with."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def save(group: str, rows: Sequence[Row]) -> Path:
    """Write one group's figures."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{group}.json"
    content = {"group": group, "measured": environment(), "rows": [row.to_dict() for row in rows]}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load() -> dict[str, dict[str, Any]]:
    """All saved groups."""
    files = sorted(RESULTS.glob("*.json"))
    return {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in files}


def page(groups: dict[str, Any], saved: dict[str, dict[str, Any]]) -> str:
    """The page of all saved figures; `groups` are the modules, by name, in order."""
    parts = [INTRODUCTION]
    for name, module in groups.items():
        if name not in saved:
            continue
        measured = saved[name]["measured"]
        what = ", ".join(f"{k} {v}" for k, v in measured.items() if k not in ("date", "processor"))
        parts.append(f"## {module.TITLE}\n\n{module.ABOUT}\n")
        parts.append(_table([Row(**_known(row)) for row in saved[name]["rows"]]))
        parts.append(f"Measured {measured['date']} with {what}, on {measured['processor']}.\n")
    return "\n".join(parts)


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != "verdict"}


def _table(rows: Sequence[Row]) -> str:
    lines = ["| | | figure | rounds | goal | |", "|---|---|--:|--:|--:|---|"]
    for row in rows:
        cells = [row.setting, row.name, f"{figure(row.value)} {row.unit}", spread(row)]
        cells += [row.wanted, row.verdict]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(value: float) -> str:
    """Three significant digits or so."""
    if abs(value) < 0.095:
        return f"{value:.2g}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(row: Row) -> str:
    """Lowest and highest round."""
    return "" if row.low is None or row.high is None else f"{figure(row.low)} – {figure(row.high)}"

"""`python -m benchmarks`: measure, print a table with goals, and keep the figures."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from types import ModuleType
from typing import Annotated

import typer

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import dashboard, discovery, forward, harvesting, importing, kinds, memory, probing, report
from benchmarks.measuring import Row
from lens.cli_errors import run
from lens.cli_progress import bar

GROUPS: dict[str, ModuleType] = {
    "forward": forward, "kinds": kinds, "discovery": discovery, "probing": probing, "memory": memory,
    "importing": importing, "harvesting": harvesting, "dashboard": dashboard,
}  # fmt: skip


class Group(StrEnum):
    """What can be measured."""

    ALL = "all"
    FORWARD = "forward"
    KINDS = "kinds"
    DISCOVERY = "discovery"
    PROBING = "probing"
    MEMORY = "memory"
    IMPORTING = "importing"
    HARVESTING = "harvesting"
    DASHBOARD = "dashboard"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    groups: Annotated[
        list[Group] | None, typer.Argument(help="What to measure; all of it by default.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds, and nothing is written.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    all_layers: Annotated[
        bool, typer.Option("--all-layers", help="Probes at every layer, not at three.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where a goal is missed.")] = False,
) -> None:
    """Measure ratios of CPU time on one thread, and memory; compare with goals."""
    torch.set_num_threads(1)
    chosen = [group.value for group in groups or []]
    names = [name for name in GROUPS if not chosen or name in chosen or "all" in chosen]
    rows: list[Row] = []
    for name in names:
        with bar(quiet=as_json) as progress:
            options = {"all_layers": all_layers} if name == "probing" else {}
            found = GROUPS[name].measure(quick=quick, progress=progress, **options)
        rows += found
        if not quick and found:
            report.save(name, found)
    if not quick:
        report.PAGE.write_text(report.page(GROUPS, report.load()), encoding="utf-8")
    if as_json:
        print(json.dumps([row.to_dict() for row in rows], indent=2, ensure_ascii=False))
    else:
        show(rows)
    if strict and any(row.verdict == "FAIL" for row in rows):
        raise typer.Exit(1)


def show(rows: list[Row]) -> None:
    """The figures as a table."""
    table = Table("", "", "figure", "unit", "rounds", "goal", "", box=None, pad_edge=False)
    for row in rows:
        style = "red" if row.verdict == "FAIL" else ""
        cells = (
            row.setting,
            row.name,
            report.figure(row.value),
            row.unit,
            report.spread(row),
            row.wanted,
            row.verdict,
        )
        table.add_row(*cells, style=style)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)


if __name__ == "__main__":
    sys.exit(run(app, sys.argv[1:] or ["all"], name="python -m benchmarks"))

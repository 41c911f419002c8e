"""`python -m benchmarks.study`: what discovery finds, kept as JSON and shown in `docs/results.md`.

A study that was interrupted goes on where it was; what is already in its file is not computed again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from benchmarks.study import nodes as node_study
from benchmarks.study import page
from benchmarks.study import planted as planted_study
from benchmarks.study import smollm2 as smollm2_study
from benchmarks.study.probes import studying as probe_study
from lens.cli_errors import run
from lens.cli_progress import bar

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def smollm2(
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="Only this task; may be repeated.")
    ] = None,
    methods: Annotated[list[str] | None, typer.Option("--method", help="Only this method.")] = None,
) -> None:
    """Circuits of SmolLM2 on six tasks (about two hours on one core)."""
    torch.set_num_threads(1)
    with bar() as progress:
        smollm2_study.study(
            tasks or list(smollm2_study.TASKS), methods or list(smollm2_study.METHODS), progress
        )
    page.write()


@app.command()
def nodes() -> None:
    """Attribution against exact patching on SmolLM2's nodes, and the roles of its heads."""
    torch.set_num_threads(1)
    with bar() as progress:
        node_study.study(progress)
    page.write()


@app.command()
def planted() -> None:
    """Every algorithm on planted circuits."""
    torch.set_num_threads(1)
    with bar() as progress:
        planted_study.study(progress)
    page.write()


@app.command("probes")
def probing(
    shows: Annotated[
        list[str] | None, typer.Option("--show", help="Only this showcase; may be repeated.")
    ] = None,
    treebank: Annotated[
        Path | None, typer.Option(help="A CoNLL-U file, for part-of-speech and structural.", exists=True)
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Compute what is there already, too.")] = False,
) -> None:
    """What linear probes find, with their floors: truth, space, sentiment, part of speech, trees; erasure, steering."""
    torch.set_num_threads(1)
    with bar() as progress:
        probe_study.study(shows or [], treebank, again, progress)
    page.write()


@app.command("page")
def write() -> None:
    """Write the page from the figures there are."""
    page.write()


if __name__ == "__main__":
    sys.exit(run(app, name="python -m benchmarks.study"))

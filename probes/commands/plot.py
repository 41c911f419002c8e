"""`probes plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probes import cli_options as cli


def command(
    run: cli.RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="A folder for the pictures.", show_default="DIR/plots")
    ] = None,
    target: cli.Target = None,
    metric: Annotated[
        str | None, typer.Option(help="Of the layer curve, such as auroc.", show_default="the first")
    ] = None,
    as_json: cli.Json = False,
) -> None:
    """Draw a run: layers with floors and intervals, confusion matrix, told values against true ones; SVG files."""
    from lens.atomic import check_writable
    from probes.drawing.pictures import written
    from probes.store import Run

    found = Run.load(run)
    target, folder = found.target(target), out or run / "plots"
    check_writable(folder)
    paths = cli.writing(folder, lambda place: written(found, place, target=target, metric=metric)) or []
    if as_json:
        cli.print_json([str(path) for path in paths])
        return
    for path in paths:
        print(path)

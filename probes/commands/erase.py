"""`probes erase`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probes import cli_options as cli


def command(
    run: cli.RunFolder,
    target: cli.Target = None,
    layers: Annotated[str, typer.Option("--layer", "--layers", help="best, or a number.")] = "best",
    method: Annotated[str, typer.Option(help="leace, inlp, mean-projection or random.")] = "leace",
    draws: Annotated[int, typer.Option(help="Random erasures of each rank to compare with.")] = 5,
    equal_effect: Annotated[
        bool,
        typer.Option("--equal-effect/--no-equal-effect", help="Find the random erasure of equal effect."),
    ] = True,
    skip: Annotated[int, typer.Option(help="Leave this many positions at each text's beginning alone.")] = 1,
    model: cli.RunModel = None,
    device: cli.Device = None,
    dtype: cli.Dtype = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for the eraser.", show_default=False)] = None,
    as_json: cli.Json = False,
) -> None:
    """Erase what a run's probes read, from half of its rows; what does that cost the other half?"""
    from lens.cli_progress import bar
    from probes.cli_report import amnesic_report
    from probes.rerun import erasable, erased
    from probes.store import Run

    found = Run.load(run)
    target = found.target(target)
    erasable(found, target, layers)
    cli.new_folder(out)
    labelled, _ = cli.read_data(found.config.dataset, found.config.dataset_options)
    with cli.warnings_told(), bar(quiet=as_json) as progress:
        loaded = cli.load_model(model or found.config.model, device, dtype or found.config.dtype, progress)
        eraser, test = erased(
            found, target, loaded, labelled, layers=layers, method=method, draws=draws,
            equal_effect=equal_effect, skip=skip, progress=progress,
        )  # fmt: skip
    cli.writing(out, eraser.save)
    if as_json:
        told = {"sites": dict(test.sites), "task": test.task, "metric": test.metric, "floor": test.floor,
                "rows": test.rows, "tokens": test.tokens, "saving": test.saving,
                "without_equal_effect": test.without_equal_effect if equal_effect else None}  # fmt: skip
        cli.print_json({"path": out and str(out), **told, "lines": cli.records(test.table)})
        return
    cli.print_rich(*amnesic_report(test, equal_effect))
    if out is not None:
        print(f"\nprobes: {out}")

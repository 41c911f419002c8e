"""`probes steer`."""

from __future__ import annotations

from typing import Annotated

import typer

from probes import cli_options as cli


def command(
    run: cli.RunFolder,
    target: cli.Target = None,
    layers: Annotated[str, typer.Option("--layer", "--layers", help="best, or a number.")] = "best",
    towards: Annotated[
        str | None, typer.Option(help="A class or value.", show_default="the second of two classes")
    ] = None,
    doses: Annotated[
        str, typer.Option(help="In standard deviations, with commas.")
    ] = "-8,-4,-2,-1,0,1,2,4,8",
    words: Annotated[
        str | None,
        typer.Option(
            metavar="A/B",
            help="Measure log p(A) − log p(B) of the next token.",
            show_default="the score of the run's deepest probe",
        ),
    ] = None,
    start: Annotated[str, typer.Option(help="all or last position, or a number to steer from.")] = "all",
    examples: Annotated[int, typer.Option(help="How many of the run's texts.")] = 64,
    model: cli.RunModel = None,
    device: cli.Device = None,
    dtype: cli.Dtype = None,
    as_json: cli.Json = False,
) -> None:
    """Add a run's direction to the activations and measure what it does, dose by dose."""
    from lens.cli_progress import bar
    from probes.cli_report import dose_report
    from probes.rerun import steerable, steered
    from probes.store import Run

    found = Run.load(run)
    target = found.target(target)
    places = cli.numbers_of(doses, f"doses is {doses!r}; it is numbers with commas")
    sides = None if words is None else words.split("/")
    if sides is not None and (len(sides) != 2 or not all(sides)):
        raise ValueError(f"words is {words!r}; it is two words with a slash, such as ' True/ False'")
    steerable(found, target, layers, towards)
    labelled, _ = cli.read_data(found.config.dataset, found.config.dataset_options)
    with cli.warnings_told(), bar(quiet=as_json) as progress:
        loaded = cli.load_model(model or found.config.model, device, dtype or found.config.dtype, progress)
        dose = steered(
            found, target, loaded, labelled, places,
            layers=layers, name=towards, words=None if sides is None else (sides[0], sides[1]),
            start=cli.number_or_name(start) or "all", examples=examples, progress=progress,
        )  # fmt: skip
    if as_json:
        told = {"site": dose.site, "sd": dose.sd, "measure": dose.measure, "start": dose.start,
                "spearman": dose.spearman, "monotone": dose.monotone and vars(dose.monotone)}  # fmt: skip
        cli.print_json({**told, "doses": cli.records(dose.table)})
        return
    cli.print_rich(*dose_report(dose))

"""`probes eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from probes import cli_options as cli


def command(
    run: cli.RunFolder,
    data: cli.Data = None,
    dataset: cli.Dataset = None,
    data_option: cli.DatasetOption = None,
    target: cli.Target = None,
    of: Annotated[
        str | None,
        typer.Option("--of", help="The target of the new data.", show_default="the same, or the main one"),
    ] = None,
    layers: Annotated[str, typer.Option(help="best, all, or numbers and ranges.")] = "best",
    model: cli.RunModel = None,
    positions: cli.Positions = None,
    device: cli.Device = None,
    dtype: cli.Dtype = None,
    as_json: cli.Json = False,
) -> None:
    """Score a run's probes on other data; without data, on the rows that its folds held out."""
    from lens.cli_progress import bar
    from probes.cli_report import evaluation_report
    from probes.rerun import chosen, evaluated, held_out
    from probes.store import Run

    found = Run.load(run)
    target = found.target(target)
    if layers != "best":
        chosen(found, target, layers)
    if data is None and dataset is None:
        given = {
            "--layers": layers != "best",
            "--of": of,
            "--positions": positions,
            "--data-option": data_option,
        }
        if ignored := next((name for name, value in given.items() if value), None):
            raise ValueError(
                f"{ignored} is for other data, and none is named; without data, rows that folds held out are scored at "
                "the layer that was chosen (`probes table` shows all layers)"
            )
        table = held_out(found, target)
    else:
        settings = found.config.with_(
            dataset=data or dataset, dataset_options=cli.options_of(data_option) or {},
            model=model or found.config.model, device=device, dtype=dtype, activations=None,
            positions=found.config.positions if positions is None else cli.number_or_name(positions),
        )  # fmt: skip
        if data is not None and dataset is not None:
            raise ValueError(f"two data sets are named, {data!r} and {dataset!r}")
        labelled, _ = cli.read_data(settings.dataset, settings.dataset_options)
        with cli.warnings_told(), bar(quiet=as_json) as progress:
            loaded = cli.load_model(settings.model, settings.device, settings.dtype, progress)
            table = evaluated(found, target, loaded, labelled, settings, of, layers, progress)
    if as_json:
        cli.print_json(cli.records(table))
        return
    cli.print_rich(*evaluation_report(found, table, data or dataset))

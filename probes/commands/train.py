"""`probes train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probes import cli_options as cli


def command(
    data: cli.Data = None,
    dataset: cli.Dataset = None,
    data_option: cli.DatasetOption = None,
    model: cli.Model = None,
    site: cli.Site = None,
    layers: cli.Layers = None,
    positions: cli.Positions = None,
    prepend_bos: cli.PrependBos = None,
    estimator: Annotated[
        str | None, typer.Option(help="One of `probes estimators`.", show_default="logistic")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="A parameter of the estimator; may be repeated."),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option("--targets", "--target", help="By name, with commas.", show_default="the main one"),
    ] = None,
    C: Annotated[
        str | None,
        typer.Option("--C", help="A number, several with commas, or grid.", show_default="grid"),
    ] = None,
    alpha: Annotated[
        str | None, typer.Option(help="The same for ridge regression.", show_default="by leave-one-out")
    ] = None,
    cv: Annotated[
        int | None, typer.Option("--cv", "--folds", help="Folds of the cross-validation.", show_default="5")
    ] = None,
    groups: Annotated[
        bool | None,
        typer.Option(
            "--groups/--no-groups", help="Keep rows of one group in one fold.", show_default="if it has any"
        ),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Columns of the data that name the groups.", show_default=False)
    ] = None,
    controls: Annotated[
        int | None, typer.Option(help="Control tasks.", show_default="1, if word types recur")
    ] = None,
    permutations: Annotated[
        int | None, typer.Option(help="Of the labels, for a p-value.", show_default="0")
    ] = None,
    mdl: Annotated[
        bool | None, typer.Option("--mdl/--no-mdl", help="Compute the online codelength.", show_default="no")
    ] = None,
    floors: Annotated[
        str | None, typer.Option(help="By name, with commas; none.", show_default="all that can be had")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="By name, with commas; the first chooses layer and penalty. Take auroc or balanced_accuracy first "
            "where classes are uneven.",
            show_default="all, accuracy or r2 first",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of folds, controls, permutations, bootstrap.", show_default="0")
    ] = None,
    bootstrap: Annotated[
        int | None, typer.Option(help="Resamples behind the intervals.", show_default="1000")
    ] = None,
    activations: Annotated[
        str | None, typer.Option(help="A folder that keeps the activations, or has them.", show_default=False)
    ] = None,
    batch_size: cli.BatchSize = None,
    device: cli.Device = None,
    dtype: cli.Dtype = None,
    config: cli.ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for the run.", show_default=False)] = None,
    as_json: cli.Json = False,
) -> None:
    """Judge a probe at every layer by how well it reads rows it has not seen, beside its floors."""
    from lens.cli_progress import bar
    from probes.cli_report import run_report
    from probes.train import check, train

    settings = cli.settings(config, {
        "dataset": dataset, "dataset_options": cli.options_of(data_option), "model": model, "site": site,
        "layers": layers, "positions": cli.number_or_name(positions), "prepend_bos": prepend_bos,
        "estimator": estimator,
        "options": cli.options_of(option), "targets": cli.names_of(targets), "C": cli.values_of(C, "C"),
        "alpha": cli.values_of(alpha, "alpha"), "cv": cv,
        "groups": cli.names_of(group_by) if group_by is not None else groups, "controls": controls,
        "permutations": permutations, "mdl": mdl, "floors": cli.names_of(floors), "metrics": cli.names_of(metrics),
        "seed": seed, "bootstrap": bootstrap, "activations": activations, "batch_size": batch_size, "device": device,
        "dtype": dtype,
    }, data)  # fmt: skip
    labelled, source = cli.read_data(settings.dataset, settings.dataset_options)
    check(labelled, settings)
    cli.new_folder(out)
    with cli.warnings_told(), bar(quiet=as_json) as progress:
        loaded = cli.load_model(settings.model, settings.device, settings.dtype, progress)
        run = train(loaded, labelled, settings, source=source, progress=progress)
    try:
        run = cli.writing(out, run.save) or run
    finally:  # what was found is not lost with the disk
        if as_json:
            path = None if run.path is None else str(run.path)
            cli.print_json({"path": path, "run": run.record, "table": cli.records(run.table)})
        else:
            cli.print_rich(*run_report(run))
    if run.path is not None and not as_json:
        print(f"\nprobes: {run.path}")

"""`probes harvest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probes import cli_options as cli


def command(
    out: Annotated[Path, typer.Option(help="The folder to write, or to go on with.")],
    data: cli.Data = None,
    dataset: cli.Dataset = None,
    data_option: cli.DatasetOption = None,
    model: cli.Model = None,
    site: cli.Site = None,
    layers: cli.Layers = None,
    positions: cli.Positions = None,
    prepend_bos: cli.PrependBos = None,
    keep: Annotated[
        str | None, typer.Option(help="float16, bfloat16, float32 or float64.", show_default="float32")
    ] = None,
    batch_size: cli.BatchSize = None,
    device: cli.Device = None,
    dtype: cli.Dtype = None,
    config: cli.ConfigFile = None,
    as_json: cli.Json = False,
) -> None:
    """Read the activations of every row once, into a folder; a killed harvest goes on where it was."""
    from lens.cli_progress import bar
    from probes.harvest import check_folder
    from probes.train import harvested, layers_of, sites_of

    settings = cli.settings(config, {
        "dataset": dataset, "dataset_options": cli.options_of(data_option), "model": model, "site": site,
        "layers": layers, "positions": cli.number_or_name(positions), "prepend_bos": prepend_bos,
        "keep": keep, "batch_size": batch_size,
        "device": device, "dtype": dtype,
    }, data).with_(activations=str(out))  # fmt: skip
    if settings.layers != "all":
        layers_of(str(settings.layers))
    check_folder(out)
    labelled, _ = cli.read_data(settings.dataset, settings.dataset_options)
    with cli.warnings_told(), bar(quiet=as_json) as progress:
        loaded = cli.load_model(settings.model, settings.device, settings.dtype, progress)
        sites = sites_of(loaded, settings.site, settings.layers)
        store = harvested(loaded, labelled, sites, settings, progress)
    if as_json:
        cli.print_json(
            {"path": str(out), "rows": store.n, "sites": list(store.sites), "record": store.record}
        )
        return
    widths = ", ".join(sorted({str(store.width(site)) for site in store.sites}))
    rows, sites = store.n, len(store.sites)
    print(
        f"{rows} row{'s' * (rows != 1)} at {sites} site{'s' * (sites != 1)}, {widths} wide, position "
        f"{store.record['positions']}: {out}"
    )

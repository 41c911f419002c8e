"""`probes datasets`."""

from __future__ import annotations

from typing import Annotated

import typer

from probes import cli_options as cli


def command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one of them.")] = None,
    data_option: cli.DatasetOption = None,
    as_json: cli.Json = False,
) -> None:
    """List the data sets, or show what one of them holds."""
    from probes.cli_report import dataset_report
    from probes.dataset import datasets, get_dataset

    if name is None:
        found = {known: get_dataset(known).summary for known in datasets()}
        if as_json:
            cli.print_json([{"name": known, "summary": summary} for known, summary in found.items()])
            return
        width = max(map(len, found))
        for known, summary in found.items():
            print(f"{known:<{width}}  {summary}")
        return
    labelled, _ = cli.read_data(name, cli.options_of(data_option) or {})
    told = dataset_report(labelled)
    if as_json:
        cli.print_json(told)
        return
    width = max(map(len, told))
    for key, value in told.items():
        for i, line in enumerate(value if isinstance(value, list) else [str(value)]):
            print(f"{key if i == 0 else '':<{width}}  {line}")

"""`probes table`."""

from __future__ import annotations

from typing import Annotated

import typer

from probes import cli_options as cli


def command(
    run: cli.RunFolder,
    target: cli.Target = None,
    metric: Annotated[str | None, typer.Option(help="Such as auroc.", show_default="the first")] = None,
    value: Annotated[
        str, typer.Option(help="One of several values by name.", show_default="their mean")
    ] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the whole table as CSV.")] = False,
    as_json: cli.Json = False,
) -> None:
    """Show the table of a run."""
    from probes.cli_report import run_report
    from probes.store import Run

    found = Run.load(run)
    if as_csv:
        print(found.table.to_csv(index=False), end="")
    elif as_json:
        cli.print_json(cli.records(found.table))
    else:
        cli.print_rich(*run_report(found, target, metric, value))

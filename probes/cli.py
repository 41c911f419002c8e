"""The command line `probes`: one file per command in `probes/commands/`."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from lens.cli_errors import run
from lens.registry import names

__all__ = ["app", "main"]

ORDER = ("datasets", "estimators", "harvest", "train", "table", "plot", "eval", "erase", "steer")
"""The order in which help lists commands; others come after these."""


def build() -> typer.Typer:
    """The application with every command of the directory: `command` in `probes/commands/<name>.py`."""
    app = typer.Typer(
        help="What the activations of a model encode, with the floors that make it believable.",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    package = import_module("probes.commands")
    for module in sorted(names(package), key=lambda n: (_place(_command(n)), n)):
        app.command(_command(module))(import_module(f"{package.__name__}.{module}").command)
    return app


def _command(module: str) -> str:
    """`eval_.py` is the command `eval`, for modules are not named like builtins."""
    return module.rstrip("_").replace("_", "-")


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


app = build()


def main() -> None:
    """The console script."""
    sys.exit(run(app, name="probes"))


if __name__ == "__main__":
    main()

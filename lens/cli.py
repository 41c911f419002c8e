"""The command line `lens`: which models there are, fetching one, and what a model is."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lens.cli_errors import run
from lens.cli_progress import bar

app = typer.Typer(
    help="Models for interpretability: what there is, fetching, describing.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Model = Annotated[str, typer.Argument(help="A known name, a folder, a .gguf file, or a Hugging Face id.")]


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that can be asked for by a plain name."""
    from lens.load import available

    found = available()
    if as_json:
        print(json.dumps([asdict(known) for known in found], indent=2))
        return
    table = Table("model", "what it is", "size", "licence", "where", box=None, pad_edge=False)
    for known in found:
        where = known.status if known.status == "shipped" else f"{known.status}: {known.where}"
        table.add_row(known.name, known.description, _megabytes(known.size), known.licence, where)
    console = _console()
    console.print(table)
    console.print("\nA folder, a .gguf file or a Hugging Face id (org/name) works too.", style="dim")


@app.command()
def fetch(model: Model, as_json: Json = False) -> None:
    """Make a model available offline."""
    from lens.load import fetch as fetch_model

    with bar(quiet=as_json) as progress:
        path = fetch_model(model, progress)
    if as_json:
        print(json.dumps({"model": model, "path": str(path)}))
    else:
        print(f"{model} is in {path}")


@app.command()
def info(model: Model, as_json: Json = False) -> None:
    """Describe a model: its architecture, size and sites."""
    from lens.description import describe

    with bar(quiet=as_json) as progress:
        found = describe(model, progress)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
        return
    console = _console()
    console.print(f"[bold]{found.name}[/bold]  {found.family}, {_count(found.n_parameters)} parameters")
    provenance = f"from {found.origin}, {found.revision}, licence {found.licence}"
    console.print(provenance, style="dim", highlight=False)
    memory = ", ".join(f"{_megabytes(size)} in {dtype}" for dtype, size in found.memory.items())
    for line in [*found.words, f"parameters take {memory}"]:
        console.print(f"  {line}", highlight=False)
    sizes = ", ".join(f"{name} {value}" for name, value in found.sizes.items() if value is not None)
    console.print(f"\n{sizes}", highlight=False)
    table = Table("site", "number", "shape", "meaning", box=None, pad_edge=False)
    for kind in found.site_kinds:
        table.add_row(kind.kind, str(kind.count), kind.shape, kind.meaning + (" *" if kind.extra else ""))
    console.print("\nWhat edits mean here:", highlight=False)
    for line in found.edits:
        console.print(f"  {line}", highlight=False)
    console.print(f"\n{found.n_sites} sites; in a block they begin with {found.blocks}", highlight=False)
    console.print(table)
    if any(kind.extra for kind in found.site_kinds):
        console.print("* made only when asked for by name", style="dim")


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=140)  # a pipe has no width of its own


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.{0 if size >= 1e7 else 1}f} MB"


def _count(n: int) -> str:
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if n >= unit:
            return f"{n / unit:.1f} {name}"
    return f"{n:,}"


def main() -> None:
    """The console script."""
    sys.exit(run(app, name="lens"))


if __name__ == "__main__":
    main()

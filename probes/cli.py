"""The command line `probes`: train probes on labelled texts, list the estimators."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lens.cli_errors import run

if TYPE_CHECKING:
    from rich.table import Table

    from probes.store import Trained

app = typer.Typer(
    help="What the activations of a model encode, with the floors that make it believable.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def train(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A .csv or .jsonl file with text, label and perhaps group.")
    ],
    model: Annotated[
        str, typer.Option(help="A known name (`lens models`), a folder, a .gguf file or a Hugging Face id.")
    ] = "smollm2",
    site: Annotated[
        str, typer.Option(help="resid_post, mlp_out, z, … for every layer, or a full name for one.")
    ] = "resid_post",
    position: Annotated[str, typer.Option(help="last (token) or mean (over tokens).")] = "last",
    estimator: Annotated[str, typer.Option(help="One of `probes estimators`.")] = "logistic",
    folds: Annotated[int, typer.Option(help="Of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the folds, the shuffled labels and the bootstrap.")] = 0,
    shuffles: Annotated[int, typer.Option(help="Permutations of the labels behind the shuffled floor.")] = 5,
    groups: Annotated[
        bool | None,
        typer.Option(
            "--groups/--no-groups",
            help="Keep texts of one group in one fold.",
            show_default="where the file has them",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Texts per forward.")] = 32,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the directions and their record.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps.", show_default="the best present")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="by device")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a probe at every layer and show how well each reads the label of texts it has not seen."""
    from lens.cli_progress import bar
    from lens.load import load
    from probes.estimator import get_estimator
    from probes.evaluate import split
    from probes.store import check_destination
    from probes.texts import Labelled
    from probes.train import train as fit

    get_estimator(estimator)
    labelled = Labelled.read(data)
    if groups and labelled.groups is None:
        raise ValueError(f"--groups needs a column 'group', which {str(data)!r} does not have")
    if groups is False:
        labelled = replace(labelled, groups=None)
    split(labelled, folds, seed)
    if out is not None:
        check_destination(out)
    source = {"file": data.name, "sha256": hashlib.sha256(data.read_bytes()).hexdigest()}
    with _warnings_told_once(), bar(quiet=as_json) as progress:
        loaded = load(model, device=device, dtype=dtype, progress=progress)
        trained = fit(
            loaded, labelled, site, position=position, estimator=estimator, folds=folds, seed=seed,
            shuffles=shuffles, batch_size=batch_size, source=source, progress=progress,
        )  # fmt: skip
    layers = {name: loaded.sites[name].layer for name in trained.coef}
    try:
        path = None if out is None else trained.save(out)
    except OSError:
        _print_trained(trained, layers, None, as_json)  # what was found is not lost with the disk
        raise
    _print_trained(trained, layers, path, as_json)


@app.command()
def estimators(as_json: Json = False) -> None:
    """List the estimators."""
    from probes.estimator import estimators as names
    from probes.estimator import get_estimator

    found = {name: get_estimator(name).summary for name in names()}
    if as_json:
        print(json.dumps([{"name": name, "summary": summary} for name, summary in found.items()], indent=2))
        return
    width = max(map(len, found))
    for name, summary in found.items():
        print(f"{name:<{width}}  {summary}")


@contextmanager
def _warnings_told_once() -> Iterator[None]:
    """Warnings of the work in the block are one line each on stderr, however many fits they came from."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield
    for kind, count in Counter(warning.category for warning in caught).items():
        first = next(warning for warning in caught if warning.category is kind)
        times = f" (first of {count})" if count > 1 else ""
        sys.stderr.write(f"probes: warning: {' '.join(str(first.message).split())}{times}\n")


def _print_trained(trained: Trained, layers: dict[str, int | None], out: Path | None, as_json: bool) -> None:
    if as_json:
        rows = [{"layer": layers[row.site], **asdict(row)} for row in trained.rows]
        path = None if out is None else str(out)
        told = {"path": path, **trained.record, "classes": list(trained.classes), "sites": rows}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    console = console if console.is_terminal else Console(width=140)  # a pipe has no width of its own
    for part in (*_header(trained.record), _table(trained, layers), *_footnote(trained)):
        console.print(part, highlight=False, markup=False)
    if out is not None:
        print(f"\nprobes: {out}")


def _header(record: Any) -> list[str]:
    data = record["data"]
    classes = ", ".join(f"{n} {name}" for name, n in data["per_class"].items())
    kept = f", {data['groups']} groups kept together" if data["groups"] else ""
    return [
        f"{record['site']} of {record['model']['name']}, position {record['position']}: "
        f"{record['estimator']['name']}, {record['folds']} folds, seed {record['seed']}",
        f"{data['texts']} texts: {classes}{kept}\n",
    ]


def _table(trained: Trained, layers: dict[str, int | None]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("site", "layer", "accuracy", "95% interval", "majority", "shuffled", ""):
        table.add_column(name, justify="left" if name in ("site", "") else "right", no_wrap=True)
    for row in trained.rows:
        layer = layers[row.site]
        table.add_row(
            row.site,
            "" if layer is None else str(layer),
            f"{row.accuracy:.3f}",
            f"{row.low:.3f}–{row.high:.3f}",
            f"{row.majority:.3f}",
            f"{row.shuffled:.3f}",
            "← best" if row.chosen_after_the_fact else "",
        )
    return table


def _footnote(trained: Trained) -> list[str]:
    if not any(row.chosen_after_the_fact for row in trained.rows):
        return []
    return [
        "\nThe best site is chosen after the fact, on the texts that judge it: its accuracy is biased upwards."
    ]


def main() -> None:
    """The console script."""
    sys.exit(run(app, name="probes"))


if __name__ == "__main__":
    main()

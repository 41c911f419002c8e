"""The command line `circuits`: discover a circuit, patch activations, show a run, list the tasks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lens.cli_errors import run
from lens.progress import Progress

if TYPE_CHECKING:
    from circuits.store import Run
    from lens.model import Transformer

MEGABYTE = 1_000_000  # totals from here on are bytes of a download

app = typer.Typer(
    help="Find, measure and look at the circuits of a model.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="One of `circuits tasks`.")]
Model = Annotated[
    str, typer.Option(help="A known name (`lens models`), a folder, a .gguf file or a Hugging Face id.")
]
Metric = Annotated[
    str | None, typer.Option(help="logit_diff, prob_diff or log_prob.", show_default="the task's own")
]
Examples = Annotated[int, typer.Option(help="How many pairs of prompts.")]
Seed = Annotated[int, typer.Option(help="Of the prompts and of the random edge sets.")]
Corruption = Annotated[
    str | None,
    typer.Option(help="How prompts are corrupted (`circuits tasks`).", show_default="the first"),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps.", show_default="the best present")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="by device")]
MaxMemory = Annotated[str, typer.Option(help="Memory to use beyond the weights, such as 700MB.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def discover(
    task: TaskName,
    model: Model = "smollm2",
    method: Annotated[str, typer.Option(help="How edges are scored: eap or eap-ig.")] = "eap-ig",
    steps: Annotated[
        int | None, typer.Option(help="Integration points.", show_default="the method's own")
    ] = None,
    metric: Metric = None,
    corruption: Corruption = None,
    examples: Examples = 32,
    edges: Annotated[
        int | None, typer.Option(help="Size of the circuit.", show_default="1000, less for a small model")
    ] = None,
    seed: Seed = 0,
    random_sets: Annotated[int, typer.Option(help="Random edge sets to compare with, of each size.")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the run.", show_default="runs/<what and when>")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in that folder.")] = False,
    device: Device = None,
    dtype: Dtype = None,
    max_memory: MaxMemory = "2GB",
    as_json: Json = False,
) -> None:
    """Find the circuit of a task in a model, measure it, and keep it as a run."""
    from circuits.discover import EDGES, Settings
    from circuits.discover import discover as find
    from circuits.graph import Graph
    from circuits.store import check_destination

    settings = Settings(
        task=task, corruption=corruption, method=method, metric=metric, steps=steps, examples=examples,
        edges=edges, seed=seed, random_sets=random_sets, max_memory=max_memory,
    )  # fmt: skip
    settings.check()
    out = out or Path("runs", run_name(task, model, method))
    check_destination(out, overwrite=overwrite)
    with phases(quiet=as_json) as progress:
        loaded = _load(model, device, dtype, progress)
        check_destination(out, overwrite=overwrite, graph=Graph.of(loaded.cfg), n_edges=edges or EDGES)
        found = find(loaded, settings, progress=progress)
    try:
        found = found.save(out, overwrite=overwrite)
    except OSError:
        _print_run(found, as_json)  # what was found is not lost with the disk
        raise
    _print_run(found, as_json)


@app.command()
def patch(
    task: TaskName,
    model: Model = "smollm2",
    site: Annotated[
        str, typer.Option(help="z (heads), resid_pre, resid_mid, resid_post, attn_out or mlp_out.")
    ] = "z",
    by_position: Annotated[
        bool | None,
        typer.Option("--by-position/--all-positions", help="One patch per position; not for z."),
    ] = None,
    metric: Metric = None,
    corruption: Corruption = None,
    examples: Examples = 32,
    seed: Seed = 0,
    top: Annotated[int, typer.Option(help="How many heads to print.")] = 15,
    device: Device = None,
    dtype: Dtype = None,
    max_memory: MaxMemory = "2GB",
    as_json: Json = False,
) -> None:
    """Give activations their corrupt value, one by one and exactly, and see what the metric does."""
    from circuits.discover import Settings
    from circuits.metrics import metric_name
    from circuits.patch import SITES, check_site
    from circuits.patch import patch as exact
    from lens.nearest import unknown

    settings = Settings(
        task=task, corruption=corruption, metric=metric, examples=examples, seed=seed, max_memory=max_memory
    )
    settings.check()
    if site not in SITES:
        raise ValueError(unknown("site to patch", site, SITES))
    found = settings.loaded_task()
    name = metric_name(metric or found.metric)
    with phases(quiet=as_json) as progress:
        loaded = _load(model, device, dtype, progress)
        check_site(loaded, site)
        pairs = found.pairs(loaded, examples, seed, corruption)
        check = found.check(loaded, pairs, name)
        patched = exact(
            loaded, pairs, site, name, by_position=by_position, max_memory=max_memory, progress=progress
        )
    tokens = _tokens(loaded, pairs.clean[0].tolist())
    if as_json:
        _print_json(
            {
                "model": loaded.name, "revision": loaded.revision, "task": found.name, "site": site,
                "metric": name, "examples": examples, "seed": seed, "axes": patched.axes,
                "effect": patched.effect.tolist(),
                "metric_model": check.mean, "metric_corrupt": float(patched.corrupt.mean()),
                "accuracy": check.accuracy, "warning": check.warning, "tokens": tokens,
            }
        )  # fmt: skip
        return
    from circuits.cli_report import patch_report, warning

    _print_rich(*warning(check.warning), patch_report(patched, tokens, top))


@app.command()
def show(
    run_folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")], as_json: Json = False
) -> None:
    """Show what a run found."""
    from circuits.store import Run

    _print_run(Run.load(run_folder), as_json)


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the tasks."""
    from circuits.tasks import tasks as all_tasks

    found = all_tasks().values()
    if as_json:
        keys = ("name", "title", "about", "source", "metric", "corruptions")
        _print_json([{key: getattr(task, key) for key in keys} for task in found])
        return
    from circuits.cli_report import task_report

    _print_rich(*(task_report(task) for task in found))


def run_name(task: str, model: str, method: str) -> str:
    """A folder name that says what a run is and when it was begun."""
    place = Path(model).stem if Path(model).exists() else model
    parts = [re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-.") for part in (task, place, method)]
    return "-".join([*parts, datetime.now().strftime("%Y%m%d-%H%M%S")])


@contextmanager
def phases(*, quiet: bool) -> Iterator[Progress]:
    """A `Progress` that draws one bar per label on stderr; one line per label where that is no terminal.

    Labels come one after the other: a new one means that the work before it is done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from lens.cli_progress import bar

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        with bar(quiet=quiet) as lines:
            yield lines
        return
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}")]
    with Bars(*columns, TimeElapsedColumn(), console=console) as bars:
        known: dict[str, Any] = {}

        def report(done: int, total: int, label: str) -> None:
            if label not in known:
                for before in bars.tasks:
                    bars.update(before.id, completed=before.total)
                known[label] = bars.add_task(label, amount="")
            in_bytes = total >= MEGABYTE
            amount = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if in_bytes else f"{done} of {total}"
            bars.update(known[label], completed=done, total=total, amount=amount)

        yield report


def _load(model: str, device: str | None, dtype: str | None, progress: Progress) -> Transformer:
    from lens.load import load

    def told(done: int, total: int, label: str) -> None:
        progress(done, total, label if total >= MEGABYTE else f"load {model}")

    return load(model, device=device, dtype=dtype, progress=told)


def _tokens(model: Transformer, ids: list[int]) -> list[str]:
    return model.tokenizer.str_tokens(ids) if model.tokenizer else [str(i) for i in ids]


def _print_run(found: Run, as_json: bool) -> None:
    if as_json:
        path = None if found.path is None else str(found.path)
        _print_json({"path": path, "run": dict(found.info), "summary": dict(found.summary)})
        return
    from circuits.cli_report import run_report

    _print_rich(run_report(found.info, found.summary))
    if found.path is not None:
        print(f"\nrun: {found.path}")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_rich(*parts: Any) -> None:
    from rich.console import Console

    for part in parts:
        Console().print(part, highlight=False)


def main() -> None:
    """The console script."""
    sys.exit(run(app, name="circuits"))


if __name__ == "__main__":
    main()

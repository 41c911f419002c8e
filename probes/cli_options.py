"""Options that several commands share, and what they all do: read settings, load model and data, print."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lens.progress import Progress

if TYPE_CHECKING:
    from lens.model import Transformer
    from probes.config import Config
    from probes.labelled import Labelled

T = TypeVar("T")
MEGABYTE = 1_000_000  # totals from here on are bytes of a download

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder (`probes train --out DIR`).")]
Data = Annotated[
    str | None,
    typer.Argument(metavar="[DATA]", help="A .csv or .jsonl file, or a name; --dataset is the same."),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        help="One of `probes datasets`, or a .csv or .jsonl file: text,label; group; start,end; type.",
        show_default=False,
    ),
]
DatasetOption = Annotated[
    list[str] | None,
    typer.Option("--data-option", metavar="NAME=VALUE", help="An argument of the data set; may be repeated."),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="A known name (`lens models`), a folder, a .gguf file or a Hugging Face id.",
        show_default="smollm2",
    ),
]
RunModel = Annotated[
    str | None,
    typer.Option("--model", help="The run's model, if it has moved.", show_default="as the run says"),
]
Site = Annotated[
    str | None, typer.Option(help="resid_post, mlp_out, z, …, or a full name.", show_default="resid_post")
]
Layers = Annotated[str | None, typer.Option(help="all, or numbers and ranges: 0-5,11.", show_default="all")]
Positions = Annotated[
    str | None,
    typer.Option(
        "--positions", "--position",
        help="last, first or mean token of each row; a place of the data (city:mean); a token's number.",
        show_default="last",
    ),
]  # fmt: skip
BatchSize = Annotated[int | None, typer.Option(help="Texts per forward.", show_default="32")]
PrependBos = Annotated[
    bool | None,
    typer.Option(
        "--prepend-bos/--no-prepend-bos",
        help="Put the beginning-of-text token in front of each text.",
        show_default="as the tokenizer does",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps.", show_default="the best present")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="by device")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A YAML file of settings, such as the config.yaml of a run folder; flags override it.",
        show_default=False,
    ),
]
Target = Annotated[str | None, typer.Option(help="One of the run's targets.", show_default="the first")]


def settings(config: Path | None, given: Mapping[str, Any], data: str | None = None) -> Config:
    """The settings of a file, with those flags in place that were given.

    Raises:
        ValueError: two data sets, none, or a setting that does not exist or does not fit.
    """
    from probes.config import Config

    flags = {name: value for name, value in given.items() if value is not None}
    if data is not None:
        if "dataset" in flags:
            raise ValueError(f"two data sets are named, {data!r} and {flags['dataset']!r}")
        flags["dataset"] = data
    if config is not None:
        return Config.read(config, **flags)
    if "dataset" not in flags:
        from probes.dataset import datasets

        raise ValueError(
            f"no data set is named; give a .csv or .jsonl file, or one of {', '.join(datasets())}"
        )
    return Config.of(flags, "the options")


def number_or_name(text: str | None) -> str | int | None:
    """A position: a number where it is one."""
    return int(text) if text is not None and text.lstrip("-").isdecimal() else text


def values_of(text: str | None, what: str) -> float | list[float] | str | None:
    """A penalty: "grid", a number, or several with commas.

    Raises:
        ValueError: it is none of these.
    """
    if text is None or text == "grid":
        return text
    found = numbers_of(text, f"{what} is {text!r}; it is a number, several with commas, or grid")
    return found if len(found) > 1 else found[0]


def numbers_of(text: str, otherwise: str) -> list[float]:
    """Numbers with commas.

    Raises:
        ValueError: `otherwise`, where they are something else.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(otherwise) from None


def names_of(text: str | None) -> list[str] | None:
    """Names with commas; "none" is an empty list."""
    if text is None:
        return None
    return [] if text == "none" else [part.strip() for part in text.split(",") if part.strip()]


def options_of(pairs: list[str] | None) -> dict[str, Any] | None:
    """NAME=VALUE as settings, values as YAML has them.

    Raises:
        ValueError: no equals sign.
    """
    import yaml

    found = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{pair!r} is not NAME=VALUE")
        found[name.strip().replace("-", "_")] = yaml.safe_load(value)
    return found or None


def read_data(name: str, options: Mapping[str, Any]) -> tuple[Labelled, dict[str, Any]]:
    """A data set by name or file, and what a record says of where it is from.

    Raises:
        ValueError: neither; or a file that cannot be read, or options that it does not take.
    """
    from probes.labelled import Labelled

    path = Path(name)
    if path.suffix.lower() in (".csv", ".jsonl", ".ndjson"):
        try:
            labelled = Labelled.read(path, **options)
        except TypeError as error:
            raise ValueError(f"{name!r} as a table: {str(error).split(') ')[-1]}") from error
        return labelled, {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    from probes.dataset import load_dataset

    return load_dataset(name, **options), {"dataset": name, "options": dict(options)}


def new_folder(out: Path | None) -> None:
    """Raise a ValueError unless a folder can be made there; asked before the work begins."""
    from probes.store import check_destination

    if out is not None:
        check_destination(out)


def writing(out: Path | None, write: Callable[[Path], T]) -> T | None:
    """What writing to a folder gives; None where none is named.

    Raises:
        ValueError: it cannot be written.
    """
    if out is None:
        return None
    try:
        return write(out)
    except OSError as error:
        raise ValueError(f"cannot write to {str(out)!r}: {error.strerror or error}") from error


def load_model(model: str, device: str | None, dtype: str | None, progress: Progress) -> Transformer:
    """`lens.load` with a label that names the model."""
    from lens.load import load

    def told(done: int, total: int, label: str) -> None:
        progress(done, total, label if total >= MEGABYTE else f"load {model}")

    return load(model, device=device, dtype=dtype, progress=told)


@contextmanager
def warnings_told() -> Iterator[None]:
    """Warnings of the work in the block are one line each on stderr, at most a few of a sort."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = Counter((w.category, " ".join(str(w.message).split())) for w in caught)
    shown: Counter[type[Warning]] = Counter()
    for (kind, text), count in texts.items():
        shown[kind] += 1
        if shown[kind] <= 3:
            sys.stderr.write(f"probes: warning: {text}{f' ({count} times)' if count > 1 else ''}\n")
    for kind, count in shown.items():
        if count > 3:
            sys.stderr.write(f"probes: warning: {count - 3} more of the sort {kind.__name__}\n")


def print_json(value: Any) -> None:
    """Indented JSON on stdout; what is missing or not a number is null."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_rich(*parts: Any) -> None:
    """Renderables on stdout; a pipe has no width of its own."""
    from rich.console import Console

    console = Console()
    console = console if console.is_terminal else Console(width=160)
    for part in parts:
        console.print(part, highlight=False, markup=False)


def records(table: Any) -> list[dict[str, Any]]:
    """The rows of a table as plain JSON types, missing numbers as null."""
    return json.loads(table.to_json(orient="records", double_precision=15))

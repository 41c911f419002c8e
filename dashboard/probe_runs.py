"""Runs of probes in the folder of saved runs: which there are, opening one, and the rows that it was trained on.

Circuits lie in the same folder; a run of probes is told by the format that its record names. Nothing outside that
folder is read: links are passed over, and a run whose rows came from a file finds them only in its own folder, as
`data.csv` or under the file's name.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.nearest import unknown
from probes.dataset import datasets, get_dataset, load_dataset
from probes.store import FORMAT, RECORD_FILE, Run

if TYPE_CHECKING:
    from probes.labelled import Labelled

LARGEST_RECORD = 4 * 2**20
PATHS = ("path", "archive", "counted_in")
"""Options of data sets that name files."""


@dataclass(frozen=True)
class Listed:
    """A run as it is found: its folder and its record."""

    path: Path
    record: Mapping[str, Any]

    @property
    def model(self) -> str:
        """What the model was loaded as."""
        return str(self.record["config"]["model"])

    @property
    def title(self) -> str:
        """`truth in smollm2: logistic at last`."""
        config, sweep = self.record["config"], self.record["sweep"]
        return (
            f"{sweep['data']['name']} in {self.model}: {config['estimator']} on {config['site']}, "
            f"position {config['positions']}"
        )


def folders(root: Path) -> dict[str, Listed]:
    """The runs of probes directly in a folder, by name, newest first; other things in it are passed over."""
    found = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.is_dir() and not path.is_symlink():
            record = _record(path / RECORD_FILE)
            if record is not None:
                found.append(Listed(path, record))
    found.sort(key=lambda run: str(run.record.get("created", "")), reverse=True)
    return {run.path.name: run for run in found}


def _record(file: Path) -> Mapping[str, Any] | None:
    """The record of a run of probes; None where the file is of something else."""
    try:
        if file.is_symlink() or not file.is_file() or file.stat().st_size > LARGEST_RECORD:
            return None
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            return None
        _ = record["config"]["model"] + record["config"]["estimator"] + record["config"]["site"]
        _ = record["config"]["positions"], record["sweep"]["data"]["name"], record["model"]["revision"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return record


def open_run(listed: Listed) -> Run:
    """The whole run, read once until its record changes.

    Raises:
        ValueError: a part of it is missing, damaged or a link.
    """
    for file in listed.path.iterdir():
        if file.is_symlink():
            raise ValueError(f"{file.name!r} in {listed.path.name!r} is a link, and is not followed")
    return _opened(str(listed.path), (listed.path / RECORD_FILE).stat().st_mtime_ns)


@functools.lru_cache(maxsize=12)
def _opened(path: str, changed: int) -> Run:
    return Run.load(path)


def siblings(run: Run, known: Mapping[str, Listed], target: str) -> dict[str, Run]:
    """Runs that differ from this one in the position only, by name; this one is among them.

    Damaged ones are left out.
    """
    assert run.path is not None
    found = {}
    for name, listed in known.items():
        if _asked(listed.record) == _asked(run.record) or listed.path == run.path:
            try:
                other = open_run(listed)
            except (ValueError, OSError):
                continue  # the page says so when it is opened itself
            if target in other.targets:
                found[name] = other
    return found


def _asked(record: Mapping[str, Any]) -> tuple[Any, ...]:
    config = record["config"]
    names = ("estimator", "site", "C", "alpha", "cv", "seed")
    data = record["sweep"]["data"].get("fingerprint")
    return record["model"]["revision"], data, *(str(config.get(name)) for name in names)


def menu() -> list[str]:
    """The data sets that need no file."""
    return [name for name in datasets() if "path" not in get_dataset(name).options]


def data_of(run: Run) -> Labelled:
    """The rows that a run was trained on.

    Raises:
        ValueError: they are in a file that does not lie in the run's folder, or are not the same any more.
    """
    from probes.labelled import Labelled

    config = run.config
    file = _file(run)
    if file is not None:
        try:
            labelled = Labelled.read(file, **config.dataset_options)
        except TypeError as error:
            raise ValueError(f"{file.name!r} cannot be read with the options of this run") from error
    else:
        options = {name: value for name, value in config.dataset_options.items() if value is not None}
        if config.dataset not in menu():
            name = Path(config.dataset).name
            raise ValueError(f"the rows of this run are not here: copy {name!r} into its folder to see them")
        if named := [name for name in PATHS if name in options]:
            raise ValueError(
                f"the rows of this run came from a file, by the option {named[0]} of {config.dataset}"
            )
        labelled = load_dataset(config.dataset, **options)
    if labelled.fingerprint != run.record["sweep"]["data"]["fingerprint"]:
        raise ValueError(f"{Path(config.dataset).name!r} does not hold the rows that this run was trained on")
    return labelled


def _file(run: Run) -> Path | None:
    """A table in the run's folder that its rows may have come from."""
    assert run.path is not None
    for name in (Path(run.config.dataset.replace("\\", "/")).name, "data.csv"):
        path = run.path / name
        if path.suffix.lower() in (".csv", ".jsonl", ".ndjson") and path.is_file() and not path.is_symlink():
            return path
    return None


def check_target(run: Run, target: str | None) -> str:
    """A target of the run; None: the first.

    Raises:
        ValueError: there is none of that name.
    """
    if target is not None and target not in run.targets:
        raise ValueError(unknown("target", target, run.targets, of="this run"))
    return target or next(iter(run.targets))

"""Runs on disk: one folder per discovery, whole or not at all.

run.json               provenance: model and its revision, task, method, metric, seed, sizes, versions, times
summary.json           what was found, in numbers for a person
scores.safetensors     the score of every edge
circuit.json           the edges of the circuit, strongest first; circuit.graphml is the same for graph tools
pairs.safetensors      the prompts as tokens; pairs.json has their texts and answers
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuits.circuit import Circuit
from circuits.graph import Graph
from circuits.pairs import Pairs
from circuits.scores import Scores
from lens import atomic

FORMAT = "circuits.run"
VERSION = 1
INFO_FILE = "run.json"
SUMMARY_FILE = "summary.json"

NUMBER = int | float
INFO = {
    "task": str, "method": str, "metric": str, "steps": int, "examples": int, "seed": int,
    "model": {"name": str, "revision": str, "origin": str | None},
}  # fmt: skip
SUMMARY = {
    "metric_model": NUMBER, "metric_corrupt": NUMBER, "accuracy": NUMBER, "warning": str | None,
    "n_edges": int, "n_edges_on_paths": int, "n_nodes_on_paths": int, "heads": [list],
    "circuits": [
        {
            "n_edges": int, "metric": NUMBER, "faithfulness": NUMBER | None,
            "random": {"sets": int, "faithfulness": NUMBER | None},
        }
    ],
}  # fmt: skip
"""What a run's tables must hold, and of which types."""

_BYTES_PER_EDGE = 300  # in circuit.json and circuit.graphml together
_BYTES_OTHERWISE = 1_000_000


@dataclass(frozen=True, eq=False)
class Run:
    """One discovery: what was asked (`info`), what came out, and where it is kept."""

    info: Mapping[str, Any]
    summary: Mapping[str, Any]
    scores: Scores
    circuit: Circuit
    pairs: Pairs
    path: Path | None = None

    def save(self, directory: str | Path, *, overwrite: bool = False) -> Run:
        """Write the run folder; returns this run with its `path`.

        Raises:
            ValueError: the folder exists and is not to be overwritten, or cannot be written to.
            OSError: writing failed, such as on a full disk; nothing is left behind.
        """
        directory = Path(directory)
        check_destination(directory, overwrite=overwrite)
        with atomic.folder(directory, replace=overwrite) as partial:
            atomic.write_json(partial / SUMMARY_FILE, dict(self.summary))
            self.scores.save(partial / "scores.safetensors")
            self.circuit.save(partial)
            self.pairs.save(partial)
            atomic.write_json(partial / INFO_FILE, {"format": FORMAT, "version": VERSION, **self.info})
        return replace(self, path=directory)

    @classmethod
    def load(cls, directory: str | Path) -> Run:
        """Read a run folder.

        Raises:
            ValueError: it is not a run folder, or a part of it is missing or damaged; one line says which.
        """
        directory = Path(directory)
        info, summary = read_info(directory), _summary(directory)
        try:
            scores, circuit, pairs = Scores.load(directory), Circuit.load(directory), Pairs.load(directory)
        except RecursionError:
            raise ValueError(f"{str(directory)!r} cannot be read: a file is nested too deeply") from None
        if scores.graph != circuit.graph:
            raise ValueError(f"the scores and the circuit in {directory} belong to different models")
        return cls(info, summary, scores, circuit, pairs, directory)


@dataclass(frozen=True)
class Listed:
    """A run as `list_runs` finds it: without its scores."""

    path: Path
    info: Mapping[str, Any]
    summary: Mapping[str, Any]


def read_info(directory: str | Path) -> dict[str, Any]:
    """The provenance of a run folder.

    Raises:
        ValueError: it is not a run folder of a version that this program reads, or its record is damaged.
    """
    directory = Path(directory)
    if not directory.is_dir():
        what = "a file" if directory.exists() else "not there"
        raise ValueError(f"{str(directory)!r} is not a run folder: it is {what}")
    if not (directory / INFO_FILE).is_file():
        raise ValueError(f"{str(directory)!r} is not a run folder: it has no {INFO_FILE}")
    info = _json(directory / INFO_FILE)
    if info.pop("format", None) != FORMAT:
        raise ValueError(
            f'{str(directory)!r} is not a run folder: its {INFO_FILE} is not of format "{FORMAT}"'
        )
    version = info.pop("version", None)
    if version != VERSION:
        raise ValueError(
            f"the run in {str(directory)!r} is of version {version!r}; this program reads {VERSION}"
        )
    _check(directory / INFO_FILE, info, INFO)
    return info


def _summary(directory: Path) -> dict[str, Any]:
    summary = _json(directory / SUMMARY_FILE)
    _check(directory / SUMMARY_FILE, summary, SUMMARY)
    return summary


def _check(file: Path, values: Any, wanted: Any, where: str = "") -> None:
    """Raise unless values have the shape of `wanted`: a type, types, a table of them, or a list of one of them.

    Raises:
        ValueError: something is missing or of another kind; the message names the file and the place.
    """
    if isinstance(wanted, dict):
        if not isinstance(values, dict):
            raise ValueError(f"{str(file)!r} is damaged: {where or 'it'} is no table")
        for key, kind in wanted.items():
            place = f"{where}.{key}" if where else key
            if key not in values:
                raise ValueError(f"{str(file)!r} is damaged: {place} is missing")
            _check(file, values[key], kind, place)
    elif isinstance(wanted, list):
        if not isinstance(values, list):
            raise ValueError(f"{str(file)!r} is damaged: {where} is no list")
        for i, value in enumerate(values):
            _check(file, value, wanted[0], f"{where}[{i}]")
    elif not isinstance(values, wanted):
        raise ValueError(f"{str(file)!r} is damaged: {where} is {values!r}")


def list_runs(root: str | Path = "runs") -> list[Listed]:
    """The runs directly in a folder, newest first; other things in it are passed over."""
    root = Path(root)
    found = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        try:
            found.append(Listed(path, read_info(path), _summary(path)))
        except (ValueError, OSError):
            continue  # not a run
    return sorted(found, key=lambda run: str(run.info.get("created", "")), reverse=True)


def check_destination(
    directory: str | Path, *, overwrite: bool = False, graph: Graph | None = None, n_edges: int = 0
) -> None:
    """Whether a run can be written to `directory`, asked before the work begins.

    With a graph and the number of edges of the circuit, the disk must also have room for the run.

    Raises:
        ValueError: the folder exists (with `overwrite`: and is not a run), it cannot be made or written to,
            or the disk has too little room.
    """
    directory = Path(directory)
    if directory.exists() or directory.is_symlink():
        if not overwrite:
            raise ValueError(f"{str(directory)!r} already exists; choose another folder, or overwrite it")
        if not directory.is_dir() or any(directory.iterdir()):
            read_info(directory)  # only runs are overwritten
    ancestor = next(parent for parent in directory.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".writable-", dir=ancestor) as probe:
            Path(probe, "probe").write_bytes(b"1")
        free = shutil.disk_usage(ancestor).free
    except OSError as error:
        raise ValueError(f"cannot write to {str(directory)!r}: {error.strerror or error}") from error
    needed = _BYTES_OTHERWISE + _BYTES_PER_EDGE * n_edges
    needed += 8 * graph.n_senders * graph.n_receivers if graph else 0
    if free < needed:
        amounts = f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free"
        raise ValueError(f"cannot write to {str(directory)!r}: {amounts}")


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{str(file)!r} cannot be read: {reason}") from error
    except RecursionError:
        raise ValueError(f"{str(file)!r} cannot be read: it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError(f"{str(file)!r} cannot be read: it holds no object")
    return values

"""Saved runs: which there are, and opening one.

An address names a run by its folder's name; only folders directly in the folder of runs, and the one given on
the command line, can be opened.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import streamlit as st

from circuits.store import Listed, Run, list_runs, read_info
from dashboard import options, probe_runs
from lens.nearest import unknown

OPENED = 4


def folders() -> dict[str, Path]:
    """The folders that can be opened, by name: the given run first, then the saved ones, newest first."""
    given = options.given()
    found = {run.path.name: run.path for run in list_runs(given.runs)}
    if given.run is not None:
        found = {given.run.resolve().name: given.run, **found}
    return found


def listed() -> list[Listed]:
    """The saved runs, newest first."""
    return list_runs(options.given().runs)


def folder(name: str) -> Path:
    """The folder of a run.

    Raises:
        ValueError: no run of that name; the message names the nearest.
    """
    known = folders()
    if name not in known:
        of = str(options.given().runs)
        raise ValueError(
            unknown("saved run", name, known) if known else f"there is no run {name!r} in {of!r}"
        )
    return known[name]


def open_run(name: str) -> Run:
    """A saved run, read once until its files change.

    Raises:
        ValueError: no run of that name, or its folder is missing, damaged, not a run, or has links in it.
    """
    path = folder(name)
    read_info(path)
    for file in path.iterdir():
        if file.is_symlink():
            raise ValueError(f"{file.name!r} in the run {name!r} is a link, and is not followed")
    return _opened(str(path.resolve()), (path / "run.json").stat().st_mtime_ns)


@st.cache_resource(max_entries=OPENED, show_spinner=False)
def _opened(path: str, changed: int) -> Run:
    return Run.load(path)


def delete(name: str) -> None:
    """Delete a saved run, of a circuit or of probes, for good.

    Only real folders directly in the folder of runs, and only runs, are deleted.

    Raises:
        ValueError: there is no such run, it lies elsewhere or is a link, or it cannot be deleted.
    """
    root = options.given().runs.resolve()
    circuits, probes = folders(), probe_runs.folders(options.given().runs)
    path = probes[name].path if name in probes and name not in circuits else folder(name)
    if path.is_symlink() or path.resolve().parent != root or path.name != name:
        raise ValueError(f"{name!r} does not lie in {str(root)!r} itself, and is not deleted")
    if name in circuits:
        read_info(path)
    aside = root / f".{name}.{uuid.uuid4().hex[:12]}.deleted"
    try:
        path.rename(aside)
        shutil.rmtree(aside)
    except OSError as error:
        raise ValueError(f"{name!r} cannot be deleted: {error.strerror or error}") from error


def when(created: str) -> datetime | None:
    """A moment, or None where it cannot be read."""
    try:
        return datetime.fromisoformat(created).astimezone()
    except ValueError:
        return None


def info_of(name: str | None) -> Mapping[str, Any] | None:
    """The provenance of a run, or None where it cannot be read."""
    try:
        return read_info(folder(name)) if name else None
    except ValueError:
        return None


def model_name(info: Mapping[str, Any]) -> str:
    """What `lens.load` is asked for to get the model of a run: what it was then, else its name, folder or file."""
    model = info["model"]
    if isinstance(model.get("source"), str) and model["source"]:
        return model["source"]
    kind, _, where = str(model.get("origin", "")).partition(" ")
    return where if kind in ("folder", "file") and where else str(model["name"])


def models() -> list[str]:
    """The models of the saved runs."""
    infos = [info_of(name) for name in folders()]
    return list(dict.fromkeys(model_name(info) for info in infos if info))


def model_of(name: str | None) -> str | None:
    """The model of a run, if the run can be read."""
    info = info_of(name)
    return model_name(info) if info else None


def example(name: str, number: int) -> str | None:
    """A clean prompt of a run, or None where there is none."""
    try:
        texts = open_run(name).pairs.clean_text
    except ValueError:
        return None
    return texts[number] if number < len(texts) else None

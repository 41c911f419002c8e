"""Kinds of places that weights come from, one file each; a file defines `SOURCE: lens.checkpoint.Source`."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from lens.checkpoint import Checkpoint, Known, Source
from lens.nearest import unknown
from lens.progress import Progress, silent
from lens.registry import collect


def open_checkpoint(name_or_path: str | Path, progress: Progress = silent) -> Checkpoint:
    """The checkpoint that `name_or_path` names: a known name, a folder, a file or a Hugging Face id.

    Raises:
        ValueError: nothing is known by that name, or what it names cannot be read; one line says which.
    """
    name = str(name_or_path)
    return _source(name).open(name, progress)


def fetch(name: str, progress: Progress = silent) -> Path:
    """Make a model that comes over a network available offline; a damaged copy is fetched again.

    Raises:
        ValueError: it cannot be fetched, or is not of that kind; one line says why.
    """
    source = _source(name)
    if source.fetch is None:
        raise ValueError(f"{name!r} is already on this machine; there is nothing to fetch")
    return source.fetch(name, progress)


def known_models() -> list[Known]:
    """Every model that can be asked for by a plain name, sorted by name."""
    return sorted((k for source in _sources() for k in source.known()), key=lambda k: k.name)


def _source(name: str) -> Source:
    for source in _sources():
        if source.accepts(name):
            return source
    raise ValueError(_not_found(name))


@cache
def _sources() -> list[Source]:
    return sorted(collect(sys.modules[__name__], "SOURCE", Source).values(), key=lambda s: s.rank)


def _not_found(name: str) -> str:
    if name.startswith(("/", "./", "../", "~")) or "\\" in name or name.endswith("/") or not name:
        return f"no file or folder {name!r}"
    names = [known.name for known in known_models()]
    also = "a folder, a .gguf file or a Hugging Face id (org/name) works too"
    return f"{unknown('model', name, names)}; {also}"

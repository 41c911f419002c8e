"""Files of pairs that people have uploaded: tasks of this process, known by what is in them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import streamlit as st

from circuits.pairs import Pairs
from circuits.task import Drawing, Task

MOST = 16
LARGEST = 2 * 2**20
SAMPLE = """clean,corrupt,answer,wrong
"When Mary and John met, John gave a drink to","When Mary and John met, Anna gave a drink to"," Mary"," John"
"When Tom and Kate met, Kate gave a book to","When Tom and Kate met, Paul gave a book to"," Tom"," Kate"
"""
"""What such a file looks like: answers are single tokens, with the space that stands before a word."""

KINDS = {".csv": Task.from_csv, ".jsonl": Task.from_jsonl}


@st.cache_resource(show_spinner=False)
def tasks() -> dict[str, Task]:
    """The uploaded tasks by name."""
    return {}


def add(filename: str, content: bytes) -> str:
    """Take a file in and give its name; the same file has the same name.

    Raises:
        ValueError: another kind of file, one that is too large, or one that cannot be read as pairs.
    """
    suffix = Path(filename).suffix.lower()
    if suffix not in KINDS:
        raise ValueError(f"{filename[:80]!r} is neither a .csv nor a .jsonl file")
    if len(content) > LARGEST:
        raise ValueError(f"{filename[:80]!r} has {len(content):,} bytes; at most {LARGEST:,} are taken")
    name = f"upload-{hashlib.sha256(suffix.encode() + content).hexdigest()[:12]}"
    known = tasks()
    if name not in known:
        known[name] = _read(filename, suffix, content, name)
        while len(known) > MOST:
            del known[next(iter(known))]
    return name


def _read(filename: str, suffix: str, content: bytes, name: str) -> Task:
    """The task of a file, which is read from a private place under a fixed name and then removed."""
    shown = Path(filename.replace("\\", "/")).name[:80]
    with tempfile.TemporaryDirectory(prefix="lens-upload-") as folder:
        path = Path(folder) / f"pairs{suffix}"
        path.write_bytes(content)
        try:
            task = KINDS[suffix](path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), shown)) from error
        except RecursionError:
            raise ValueError(f"{shown} is nested too deeply to be read") from None
    return replace(
        task,
        name=name,
        title=shown[:60],
        source="An uploaded file",
        build=partial(_build, task.build, str(path), shown),
    )


def _build(build: Callable[[Drawing], Pairs], path: str, shown: str, drawing: Drawing) -> Pairs:
    """The pairs of a file; what is wrong with a row is told under the file's own name."""
    try:
        return build(drawing)
    except ValueError as error:
        raise ValueError(str(error).replace(path, shown)) from error

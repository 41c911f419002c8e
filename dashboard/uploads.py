"""Files of pairs that people have uploaded: tasks of this process, known by what is in them."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import streamlit as st

from circuits.task import Task

MOST = 16
LARGEST = 2 * 2**20
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
    with tempfile.TemporaryDirectory(prefix="lens-upload-") as folder:
        path = Path(folder) / f"pairs{suffix}"
        path.write_bytes(content)
        try:
            task = KINDS[suffix](path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), Path(filename).name[:80])) from error
    return replace(task, name=name, title=Path(filename).name[:60])

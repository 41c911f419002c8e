"""Files and folders that appear whole or not at all.

1. Write to a temporary sibling (same filesystem), `.<name>.<random>.partial`.
2. `fsync` what was written, so that a power cut cannot leave an empty file under the final name.
3. Rename onto the final name: one atomic step.

On any exception (a full disk, a cancelled job, Ctrl-C) the sibling and every parent folder made for it are
removed, and what stood under the final name before still stands there.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def file(path: str | Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends well.

    Raises:
        OSError: the folder is not writable, the disk is full, …; nothing is left behind.
    """
    path = Path(path)
    with _parents(path), _sibling(path) as temporary:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)


@contextmanager
def folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder to fill; it becomes `path` when the block ends well.

    With `replace`, a folder that stands there is swapped out for the new one and then deleted.

    Raises:
        FileExistsError: `path` exists and `replace` was not given (told before any work is done), or it is
            not a folder.
        OSError: the parent is not writable, the disk is full, …; nothing is left behind.
    """
    path = Path(path)
    _refuse_existing(path, replace)
    with _parents(path), _sibling(path) as temporary:
        temporary.mkdir()
        yield temporary
        for parent, _, names in os.walk(temporary, topdown=False):
            for name in names:
                _sync(Path(parent, name))
            _sync(Path(parent))
        _refuse_existing(path, replace)
        _swap_in(temporary, path)
        _sync(path.parent)


def check_writable(path: str | Path) -> None:
    """Whether something could be written at `path`, asked before the work begins.

    Asked by writing: permissions alone do not tell of read-only or virtual file systems. Nothing is left behind.

    Raises:
        ValueError: the folder itself, or the nearest one above it that exists, cannot be written to.
    """
    path = Path(path)
    above = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not above.is_dir():
        raise ValueError(f"cannot write to {str(path)!r}: {str(above)!r} is not a folder")
    trial = above / f".{uuid.uuid4().hex[:12]}.partial"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"cannot write to {str(path)!r}: {str(above)!r} takes no new files: {reason}"
        ) from error


def write_bytes(path: str | Path, data: bytes) -> None:
    """`path` holds exactly `data`, or what it held before."""
    with file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """`path` holds `value` as indented UTF-8 JSON, or what it held before."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _refuse_existing(path: Path, replace: bool) -> None:
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{str(path)!r} is a file; a folder was to be written there")
    if path.exists() and not replace:
        raise FileExistsError(f"{str(path)!r} already exists; choose another folder")


def _swap_in(temporary: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.old")
    had_old = path.exists()
    if had_old:
        os.rename(path, old)
    try:
        os.rename(temporary, path)
    except BaseException:
        if had_old:
            os.rename(old, path)
        raise
    if had_old:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _sibling(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the parents of `path`; on an exception remove those that were made, as far as they are empty."""
    missing = [p for p in path.parents if not p.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def _sync(path: Path) -> None:
    """Force `path` to the disk; a folder only where the system can open folders."""
    if os.name == "nt":  # no folder handles, and files need a writable one
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

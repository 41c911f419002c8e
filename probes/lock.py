"""One writer per folder: a lock that goes with the process that holds it, however it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder.

    Raises:
        ValueError: another process, or another thread of this one, holds it.
    """
    handle = _open(folder)
    try:
        try:
            _lock(handle)
        except OSError as error:
            raise ValueError(f"{str(folder)!r} is being written by another process") from error
        yield
    finally:
        os.close(handle)


if sys.platform == "win32":  # folders cannot be opened there
    import msvcrt

    def _open(folder: Path) -> int:
        return os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _open(folder: Path) -> int:
        return os.open(folder, os.O_RDONLY)

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

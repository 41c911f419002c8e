"""Progress and cancellation of long work; whoever watches does the drawing.

Long functions take `progress: Progress = silent` and call `progress(done, total, label)` between pieces of
work. To cancel, the callback raises `Cancelled`; the work unwinds and leaves nothing half-written.
"""

from typing import Protocol, runtime_checkable


class Cancelled(Exception):
    """The watcher asked for the work to stop."""


@runtime_checkable
class Progress(Protocol):
    def __call__(self, done: int, total: int, label: str) -> None: ...


def silent(done: int, total: int, label: str) -> None:
    """Nobody is watching."""

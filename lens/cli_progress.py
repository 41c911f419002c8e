"""Progress of long work: a bar on stderr, or in a log one line per piece of work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lens import progress as watching

_BYTES = 1_000_000  # totals from here on are bytes, for the eye


@contextmanager
def bar(*, quiet: bool = False) -> Iterator[watching.Progress]:
    """A `Progress` that draws. On a pipe it writes each new label once; `quiet` writes nothing."""
    if quiet:
        yield watching.silent
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}")]
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as drawn:
        task = drawn.add_task("", total=None, amount="")

        def report(done: int, total: int, label: str) -> None:
            drawn.update(task, completed=done, total=total, description=label, amount=_amount(done, total))

        yield report


def _amount(done: int, total: int) -> str:
    if total >= _BYTES:
        return f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
    return f"{done} of {total}"


def _lines() -> watching.Progress:
    last = ""

    def report(done: int, total: int, label: str) -> None:
        nonlocal last
        if label != last:
            sys.stderr.write(label + "\n")
            sys.stderr.flush()
            last = label

    return report

"""How a command line ends: bad input is one line on stderr and exit code 2, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from lens.progress import Cancelled

_UsageError: type[Exception] = typer.BadParameter.__base__  # pyright: ignore[reportAssignmentType]


def run(app: typer.Typer, arguments: Sequence[str] | None = None, *, name: str) -> int:
    """Run a typer application and give its exit code.

    0: done. 1: the reader of a pipe went away. 2: bad input, told in one line. 130: interrupted or cancelled.
    With `LENS_DEBUG` set, errors keep their traceback.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        command = typer.main.get_command(app)
        code = command.main(arguments or ["--help"], prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return 1
    except (KeyboardInterrupt, Cancelled, typer.Abort):
        _say(f"{name}: cancelled")
        return 130
    except (_UsageError, ValueError, OSError, MemoryError) as error:
        if os.environ.get("LENS_DEBUG"):
            raise
        _say(f"{name}: {one_line(error)}")
        return 2
    if code == 130:  # some versions of typer turn an interrupt into this code
        _say(f"{name}: cancelled")
    return code if isinstance(code, int) else 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def one_line(error: BaseException) -> str:
    """What went wrong, for a person, in one line."""
    if isinstance(error, _UsageError):
        text = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename!r}" if error.filename else error.strerror
    elif isinstance(error, MemoryError):
        text = "out of memory"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())

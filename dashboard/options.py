"""Where saved runs are, and which one to open first.

Command line first, then environment, then default: `--runs DIR` or `LENS_RUNS` (default `./runs`) is the
folder of saved runs; `--run DIR` or `LENS_RUN` is one run to open when the dashboard starts.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    runs: Path
    run: Path | None


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Options from a command line, whose other arguments are left alone, and an environment."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", default=environment.get("LENS_RUN") or None)
    parser.add_argument("--runs", default=environment.get("LENS_RUNS") or "runs")
    known, _ = parser.parse_known_args(list(arguments))
    return Options(Path(known.runs), Path(known.run) if known.run else None)


def given() -> Options:
    """The options of this process."""
    return parse(sys.argv[1:], os.environ)

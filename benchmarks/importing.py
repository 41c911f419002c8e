"""What `import lens` costs, in multiples of `import torch`."""

from __future__ import annotations

import resource
import subprocess
import sys

from benchmarks.measuring import Row, ratios
from lens.progress import Progress, silent

TITLE = "Importing"
UNIT = "× import torch"
GOALS = {"import lens": 1.3}
ABOUT = "User time of a fresh interpreter, in multiples of one that imports torch."
MODULES = ("lens", "transformers", "transformer_lens", "transformer_lens.model_bridge")


def measure(*, quick: bool = False, progress: Progress = silent) -> list[Row]:
    """One figure per package."""
    modules = MODULES[:1] if quick else MODULES
    cases = {f"import {module}": lambda module=module: imports(module) for module in modules}
    found = ratios(
        lambda: imports("torch"),
        cases,
        3 if quick else 7,
        times=1,
        progress=progress,
        clock=children_user_time,
    )
    return [r.row("importing", "", name, UNIT, GOALS.get(name)) for name, r in found.items()]


def imports(module: str) -> None:
    """Import a module in a process of its own."""
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True, capture_output=True)


def children_user_time() -> float:
    """User seconds of all processes started here that have ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime

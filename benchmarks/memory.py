"""Peak memory above the loaded model: each case in a process of its own, whose high-water mark is set back."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.measuring import Row
from lens.progress import Progress, silent

TITLE = "Memory"
UNIT = "MB above the weights"
BUDGET = "1GB"
BUDGETED = {f"EAP of {n} prompts within {BUDGET}": n for n in (8, 64, 512)}
GOALS = {"EAP": 700, **dict.fromkeys(BUDGETED, 1000)}
ABOUT = (
    "SmolLM2, 8 IOI prompts that differ at the second subject: the highest resident memory less that before the "
    'call. Then EAP of more prompts whose three names all differ, with `max_memory="1GB"`. Linux only.'
)
CASES = (
    "forward",
    "all sites",
    "EAP",
    "EAP-IG, 5 steps",
    "evaluate 1,000 edges",
    "heads",
    "layer × position",
    *BUDGETED,
)


def measure(*, quick: bool = False, progress: Progress = silent) -> list[Row]:
    """One figure per case; none where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return []
    rows = []
    for i, case in enumerate(CASES[:3] if quick else CASES):
        progress(i, len(CASES), case)
        command = [sys.executable, "-m", "benchmarks.memory", case]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(
                f"measuring the memory of {case!r} failed: {done.stderr.strip().splitlines()[-1]}"
            )
        rows.append(Row("memory", "smollm2", case, json.loads(done.stdout), UNIT, GOALS.get(case)))
    return rows


def peak_above(case: str) -> float:
    """Megabytes that a case needs at most, beyond what is resident before it."""
    import torch

    from benchmarks import discovery
    from benchmarks.models import ioi, smollm2
    from circuits import attribute, load_task

    torch.set_num_threads(1)
    model, pairs = smollm2(), ioi("abc")
    if case in BUDGETED:
        many = load_task("ioi").pairs(model, n=BUDGETED[case], seed=0, corruption="fresh")
        work = lambda: attribute(model, many, method="eap", max_memory=BUDGET)  # noqa: E731
    else:
        work = {
            "forward": lambda: model(pairs.clean),
            "all sites": lambda: model.run_with_cache(pairs.clean),
            **discovery.cases(pairs),
        }[case]
    model(pairs.clean[:1])  # libraries loaded, buffers of the kernels made
    gc.collect()
    trim()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    kept = work()
    peak = status("VmHWM")
    del kept
    return round((peak - before) / 1000, 1)


def status(field: str) -> float:
    """A field of /proc/self/status, in thousands of bytes."""
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(field))
    return int(line.split()[1]) * 1.024


def trim() -> None:
    """Give freed memory back to the system, so that it cannot be used again unseen."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    print(json.dumps(peak_above(sys.argv[1])))
